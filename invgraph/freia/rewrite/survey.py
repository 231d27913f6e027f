"""First pass over a script: its networks, and what keeps them from being native graphs."""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst

from invgraph.freia.rewrite.names import GRAPHS, LAYERS, SEQUENCES, Resolver, dotted, last_name, star_names

_READ = {
    "node_list", "in_nodes", "out_nodes", "condition_nodes", "module_list", "dims_in", "dims_c", "shapes", "conditions",
    "get_node_by_name", "get_module_by_name", "log_jacobian_numerical", "global_out_shapes", "output_dims",
}  # fmt: skip
"""Attributes of FrEIA's networks that native graphs do not have."""


@dataclass
class Chain:
    """A SequenceINN that a script builds.

    Attributes:
        start: The statement that makes it.
        parents: The statements around it.
        last: The last statement of the same block that appends to it.
        conditions: Source of the shape of each condition, by its number.
    """

    start: cst.CSTNode
    parents: list[cst.CSTNode]
    last: cst.CSTNode
    conditions: dict[int, str] = field(default_factory=dict)


@dataclass
class Found:
    """Contents of a script.

    Attributes:
        networks: Names of networks, such as ``self.inn``, and the class in FrEIA, the function that builds it, or the
            name that it has in its own class.
        chains: Those SequenceINNs, by name, that are built where they are made.
        builders: Names of functions and methods that return a network, and the network's own name there, if any.
        called: Last parts of the names that are called.
        nodes: Names of variables that hold nodes.
        splits: Names of variables that hold nodes of several outputs.
        several: True if there are nodes that have, or may have, several outputs.
        members: Names of attributes that hold networks, by the name of the class.
        lists: Number of elements of variables that hold lists or tuples written out.
        starred: Names that star imports bring.
        blocks: Reasons why the networks stay FrEIA's, by statement.
        advice: What to look at, by statement.
    """

    networks: dict[str, str] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    builders: dict[str, str] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)
    several: bool = False
    members: dict[str, set[str]] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)
    starred: set[str] = field(default_factory=set)
    blocks: dict[cst.CSTNode, list[str]] = field(default_factory=dict)
    advice: dict[cst.CSTNode, list[str]] = field(default_factory=dict)

    def conditions_of(self, name: str) -> list[int] | None:
        """Return the numbers of the conditions of a chain; None for other networks."""
        origin = self.networks.get(name, "")
        names = (name, origin, self.builders.get(origin, ""))
        chain = next((self.chains[each] for each in names if each in self.chains), None)
        return None if chain is None else sorted(chain.conditions)


class Survey(cst.CSTVisitor, Resolver):
    """Fill in what a script holds; run it twice, because functions may be called above their definition."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found
        self.starred = found.starred
        self.statements: list[cst.CSTNode] = []
        self.layers = 0
        self.functions: list[str] = []
        self.owners: list[str] = []
        self.classes: set[str] = set()
        self.instances: set[str] = set()
        self.direct: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            self.statements.append(node)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        super().on_leave(original_node)
        if isinstance(original_node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            self.statements.pop()

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        self.starred |= star_names(node)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        kinds = [self.freia(base.value) for base in node.bases]
        self.classes.add(node.name.value)
        self.owners.append(node.name.value)
        if any(kind in (*GRAPHS, *SEQUENCES) for kind in kinds):
            self._block("a subclass of a network: derive from torch.nn.Module and hold an ig.Graph")
        self.layers += any(kind in LAYERS for kind in kinds) or _takes_rev(node)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self.owners.pop()
        kinds = [self.freia(base.value) for base in original_node.bases]
        self.layers -= any(kind in LAYERS for kind in kinds) or _takes_rev(original_node)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.functions.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self.functions.pop()

    def visit_Return(self, node: cst.Return) -> None:
        if node.value is None or not self.functions:
            return
        self.direct.add(node.value)
        kind = self.freia(node.value.func) if isinstance(node.value, cst.Call) else ""
        name = dotted(node.value)
        if kind in GRAPHS or name in self.found.networks:
            self.found.builders[self.functions[-1]] = "" if kind else name
            if self.functions[-1] not in self.found.called:
                self._advise(f"where others call what {self.functions[-1]} returns: graph(x, c), graph.inverse(z, c)")

    def visit_Assign(self, node: cst.Assign) -> None:
        targets = [dotted(target.target) for target in node.targets]
        value = node.value
        if isinstance(value, (cst.List, cst.Tuple)) and not any(
            isinstance(element, cst.StarredElement) for element in value.elements
        ):
            self.found.lists.update(dict.fromkeys(targets, len(value.elements)))
        together = [target.target for target in node.targets]
        if isinstance(value, cst.Tuple) and len(together) == 1 and isinstance(together[0], cst.Tuple):
            for target, element in zip(together[0].elements, value.elements, strict=False):
                self._assign([dotted(target.value)], element.value)
        else:
            self._assign(targets, value)

    def _assign(self, targets: list[str], value: cst.BaseExpression) -> None:
        """Note what a call assigns to names."""
        if not isinstance(value, cst.Call):
            return
        self.direct.add(value)
        name, kind = last_name(value.func), self.freia(value.func)
        copied = dotted(value.args[0].value) if name == "deepcopy" and value.args else ""
        if copied in self.found.networks:
            self.found.networks.update(dict.fromkeys(targets, self.found.networks[copied]))
        elif kind in GRAPHS:
            self.found.networks.update(dict.fromkeys(targets, kind))
        elif kind in SEQUENCES and len(targets) == 1:
            self._start(targets[0], kind, value)
        elif name in self.found.builders:
            self.found.networks.update(dict.fromkeys(targets, name))
        elif name in self.classes:
            self.instances.update(targets)
            for member in self.found.members.get(name, ()):
                self.found.networks.update({f"{target}.{member}": f"self.{member}" for target in targets})
        elif kind in ("Node", "InputNode", "ConditionNode", "FeedForwardNode"):
            self.found.nodes.update(targets)
            if len(value.args) > 1 and self.freia(value.args[1].value).startswith("Split"):
                self.found.splits.update(targets)
        own = {target[5:] for target in targets if target.startswith("self.") and target in self.found.networks}
        if self.owners and own:
            self.found.members.setdefault(self.owners[-1], set()).update(own)

    def _start(self, target: str, kind: str, value: cst.Call) -> None:
        self.found.networks[target] = kind
        if target not in self.found.chains:
            self.found.chains[target] = Chain(self.statements[-1], self.statements[:-1], self.statements[-1])
        elif self.found.chains[target].start is not self.statements[-1]:
            self._block(f"another chain is named {target}: give each network a name of its own")
        if any(argument.keyword is not None for argument in value.args):
            self._block("force_tuple_output: a native graph returns what it was declared with")
        if len(value.args) == 3 and all(dotted(argument.value) == "1" for argument in value.args[1:]):
            self._block("declared as (C, 1, 1): a native graph has fixed sizes, so declare those of the data")

    def visit_Call(self, node: cst.Call) -> None:
        name = dotted(node.func)
        kind = self.freia(node.func)
        self.found.called.add(last_name(node.func))
        keywords = {argument.keyword.value: argument.value for argument in node.args if argument.keyword is not None}
        self._check_passed_on(node)
        self._check_stars(name, kind, node)
        if name in self.found.networks:
            self._check_call(name, keywords)
        elif name.endswith(".append") and name.removesuffix(".append") in self.found.chains:
            self._append(name.removesuffix(".append"), node, keywords)
        elif kind in GRAPHS and ("force_tuple_output" in keywords or len(node.args) - len(keywords) > 1):
            self._block("force_tuple_output: a native graph returns what it was declared with")
        elif kind == "Node":
            module = keywords.get("module_type") or (node.args[1].value if len(node.args) > 1 else None)
            self.found.several |= self.freia(module).startswith("Split") or not self.freia(module)
        elif kind == "FeedForwardNode":
            self._block("FeedForwardNode: write ig.FeatureNode(conditions, module, args), which finds its shape itself")
        elif "rev" in keywords and not self.layers and name not in self.instances and not kind:
            self._block(f"{name}(..., rev=...) may be a network: a native graph has graph.inverse(z, c)")

    def _check_stars(self, name: str, kind: str, node: cst.Call) -> None:
        """Note arguments in * and **, whose number and names the survey does not know."""
        allowed = "*" if kind in ("InputNode", "ConditionNode") else ""
        takes = kind in (*GRAPHS, "Node", "OutputNode", "InputNode", "ConditionNode") or name in self.found.networks
        if takes and any(argument.star not in ("", allowed) for argument in node.args):
            self._block(f"arguments of {name} in * or **: write them out")

    def _check_passed_on(self, node: cst.Call) -> None:
        """Note networks that are called under names that the survey does not follow."""
        passed = [dotted(argument.value) for argument in node.args if dotted(argument.value) in self.found.networks]
        if last_name(node.func) in self.found.builders and node not in self.direct:
            passed.append(dotted(node.func))
        if passed and last_name(node.func) != "deepcopy":
            self._block(
                f"the network of {passed[0]} is called elsewhere: write graph(x, c) and graph.inverse(z, c) there"
            )

    def visit_List(self, node: cst.List) -> None:
        for element in node.elements:
            if dotted(element.value) in self.found.networks:
                self._block("a list of networks: write graph(x, c) and graph.inverse(z, c) where they are called")

    def _check_call(self, name: str, keywords: dict[str, cst.BaseExpression]) -> None:
        if "intermediate_outputs" in keywords or "x" in keywords:
            self._block("intermediate_outputs: call graph[name] by hand, or register hooks on it")
        c = keywords.get("c")
        if c is None or isinstance(c, (cst.List, cst.Tuple)) or dotted(c) == "None" or dotted(c) in self.found.lists:
            return
        if self.found.conditions_of(name) is None:
            self._advise("pass one condition as a tensor, several as a tuple")

    def _append(self, name: str, node: cst.Call, keywords: dict[str, cst.BaseExpression]) -> None:
        chain = self.found.chains[name]
        depth = len(chain.parents)
        if self.statements[:depth] != chain.parents:
            self._block("append far from where the SequenceINN is made: build the graph in one place")
            return
        chain.last = self.statements[depth]
        if len([argument for argument in node.args if argument.keyword is None and not argument.star]) != 1:
            self._block("append with conditions by position: name them, cond=0, cond_shape=(...)")
        cond, shape = keywords.get("cond"), keywords.get("cond_shape")
        if cond is None or dotted(cond) == "None":
            return
        if not isinstance(cond, cst.Integer) or shape is None:
            self._block("a condition whose number or shape is computed: declare ig.ConditionNode(...)")
            return
        sizes = dotted(shape)
        own = ", ".join(dotted(element.value) for element in shape.elements) if isinstance(shape, cst.Tuple) else (
            f"*{sizes}"
        )  # fmt: skip
        if chain.conditions.setdefault(int(cond.value), own) != own:
            self._block(f"condition {cond.value} with two shapes: declare an ig.ConditionNode for each")

    def visit_Attribute(self, node: cst.Attribute) -> None:
        base, name = dotted(node.value), node.attr.value
        if base in self.found.networks:
            if name in ("log_jacobian", "jacobian"):
                self._block(f".{name}(...) is of FrEIA before 0.2: write z, log_jac = net(x, c=c)")
            elif name in _READ:
                self._block(
                    f".{name} of a network: a native graph has graph[name], graph.layers, in_shapes, out_shapes"
                )
            elif name in ("named_parameters", "named_modules", "named_children"):
                self._block(f".{name}(): keys of a native graph are layers.<name of the node>.module. ...")
            elif name == "load_state_dict":
                self._advise("FrEIA's checkpoints have other keys: python -m invgraph.freia.convert moves them")
        elif name in ("output_dims", "input_dims") and not self.layers:
            self._block(f".{name} of a node: a native node has .shapes, a value .shape")

    def visit_Subscript(self, node: cst.Subscript) -> None:
        if dotted(node.value) in self.found.chains:
            self._block("a layer or slice of a SequenceINN: a native graph has graph[name]")

    def _block(self, message: str) -> None:
        _add(self.found.blocks, self.statements[-1], message)

    def _advise(self, message: str) -> None:
        _add(self.found.advice, self.statements[-1], message)


def _add(notes: dict[cst.CSTNode, list[str]], statement: cst.CSTNode, message: str) -> None:
    listed = notes.setdefault(statement, [])
    if message not in listed:
        listed.append(message)


def _takes_rev(node: cst.ClassDef) -> bool:
    """True if a class has a method with an argument ``rev``, as FrEIA's layers have."""
    methods = [part for part in node.body.body if isinstance(part, cst.FunctionDef)]
    return any(param.name.value == "rev" for method in methods for param in method.params.params)
