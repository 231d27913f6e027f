"""First pass over a script: its networks, and what keeps them from being native graphs."""

from __future__ import annotations

import libcst as cst

from invgraph.freia.rewrite.found import ALL, Chain, Found, Note
from invgraph.freia.rewrite.lists import UNKNOWN
from invgraph.freia.rewrite.names import GRAPHS, LAYERS, SEQUENCES, Resolver, dotted, last_name, star_names
from invgraph.freia.rewrite.syntax import is_in_branch, key_set_by, keys_of, takes_rev

_READ = {
    "node_list", "in_nodes", "out_nodes", "condition_nodes", "module_list", "dims_in", "dims_c", "shapes", "conditions",
    "get_node_by_name", "get_module_by_name", "log_jacobian_numerical", "global_out_shapes", "output_dims",
}  # fmt: skip
"""Attributes of FrEIA's networks that native graphs do not have."""

_KINDS = {**dict.fromkeys(GRAPHS, "graphs"), **dict.fromkeys(SEQUENCES, "chains")}
_NO_DRAWS = {"seed", "default_rng", "RandomState", "Generator", "get_state", "set_state", ""}
"""Names in numpy.random that do not draw from the global generator."""


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
        self.scopes = [(0, 0)]  # for each function: number of statements around its body, and of conditions so far

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            self.statements.append(node)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        super().on_leave(original_node)
        if isinstance(original_node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            self.statements.pop()

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        self.starred |= star_names(node)
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        kinds = [self.freia(base.value) for base in node.bases]
        self.classes.add(node.name.value)
        self.owners.append(node.name.value)
        subclassed = {_KINDS[kind] for kind in kinds if kind in _KINDS}
        if subclassed:
            self._block("a subclass of a network: derive from torch.nn.Module and hold an ig.Graph", *subclassed)
        self.layers += any(kind in LAYERS for kind in kinds) or takes_rev(node)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self.owners.pop()
        kinds = [self.freia(base.value) for base in original_node.bases]
        self.layers -= any(kind in LAYERS for kind in kinds) or takes_rev(original_node)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.functions.append(node.name.value)
        self.scopes.append((len(self.statements), 0))

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self.functions.pop()
        self.scopes.pop()

    def _count_condition(self) -> None:
        """Count a condition of the function; the number is unknown from one in a loop or branch on."""
        around, count = self.scopes[-1]
        plain = len(self.statements) == around + 1
        self.scopes[-1] = (around, count + 1 if plain and count >= 0 else -1)

    def _declare(self, names: list[str]) -> None:
        """Note how many conditions the networks of some names have, at most."""
        count = max(self.scopes[-1][1], 0)
        for name in names:
            self.found.conditions[name] = min(count, self.found.conditions.get(name, count))

    def visit_Return(self, node: cst.Return) -> None:
        if node.value is None or not self.functions:
            return
        self.direct.add(node.value)
        kind = self.freia(node.value.func) if isinstance(node.value, cst.Call) else ""
        name = dotted(node.value)
        if kind in GRAPHS or name in self.found.networks:
            self.found.builders[self.functions[-1]] = "" if kind else name
            self._declare([self.functions[-1]] if kind else [])
            if self.functions[-1] not in self.found.called:
                name = self.functions[-1]
                self._advise(f"where others call what {name} returns: graph(x, c), graph.inverse(z, c)", name)

    def visit_Assign(self, node: cst.Assign) -> None:
        targets = [dotted(target.target) for target in node.targets]
        value = node.value
        keys = keys_of(value)
        if keys is not None:
            self.found.dicts.update({target: keys | self.found.dicts.get(target, set()) for target in targets})
        for name, key in filter(None, (key_set_by(target.target) for target in node.targets)):
            self.found.dicts.setdefault(name, set()).add(key)
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
            self._declare(targets)
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
            self._block(f"another chain is named {target}: give each network a name of its own", "chains")
        if any(argument.keyword is not None for argument in value.args):
            self._block("force_tuple_output: a native graph returns what it was declared with", "chains")
        if len(value.args) == 3 and all(dotted(argument.value) == "1" for argument in value.args[1:]):
            self._block("declared as (C, 1, 1): a native graph has fixed sizes, so declare those of the data", "chains")

    def visit_Call(self, node: cst.Call) -> None:
        name = dotted(node.func)
        kind = self.freia(node.func)
        self.found.called.add(last_name(node.func))
        keywords = {argument.keyword.value: argument.value for argument in node.args if argument.keyword is not None}
        self._check_passed_on(node)
        self._check_stars(name, kind, node)
        if name in self.found.networks:
            self._check_call(name, node, keywords)
        elif name.endswith(".append") and name.removesuffix(".append") in self.found.chains:
            self._append(name.removesuffix(".append"), node, keywords)
        elif kind in GRAPHS and ("force_tuple_output" in keywords or len(node.args) - len(keywords) > 1):
            self._block("force_tuple_output: a native graph returns what it was declared with", "graphs")
        elif kind == "Node":
            module = keywords.get("module_type") or (node.args[1].value if len(node.args) > 1 else None)
            self.found.several |= self.freia(module).startswith("Split") or not self.freia(module)
        elif kind == "FeedForwardNode":
            message = "FeedForwardNode: write ig.FeatureNode(conditions, module, args), which finds its shape itself"
            self._block(message, "graphs")
        elif kind == "ConditionNode":
            self._count_condition()
        elif "rev" in keywords and not self.layers and name not in self.instances and not kind:
            self._block(f"{name}(..., rev=...) may be a network: a native graph has graph.inverse(z, c)")

    def _check_stars(self, name: str, kind: str, node: cst.Call) -> None:
        """Note arguments in * and **, whose number and names the survey does not know."""
        allowed = "*" if kind in ("InputNode", "ConditionNode") else ""
        takes = kind in (*GRAPHS, "Node", "OutputNode", "InputNode", "ConditionNode") or name in self.found.networks
        if takes and any(argument.star not in ("", allowed) for argument in node.args):
            self._block(f"arguments of {name} in * or **: write them out", self.found.kind(name))

    def _check_passed_on(self, node: cst.Call) -> None:
        """Note networks that are called under names that the survey does not follow."""
        passed = [dotted(argument.value) for argument in node.args if dotted(argument.value) in self.found.networks]
        kinds, function = {self.found.kind(name) for name in passed}, last_name(node.func)
        if function in self.found.builders and node not in self.direct:
            passed.append(dotted(node.func))
            kinds.add(self.found.kind(function))
        if passed and function != "deepcopy":
            message = f"the network of {passed[0]} is called elsewhere: write graph(x, c) and graph.inverse(z, c) there"
            self._block(message, *kinds)

    def visit_List(self, node: cst.List) -> None:
        for element in node.elements:
            if dotted(element.value) in self.found.networks:
                message = "a list of networks: write graph(x, c) and graph.inverse(z, c) where they are called"
                self._block(message, self.found.kind(dotted(element.value)))

    def _check_call(self, name: str, node: cst.Call, keywords: dict[str, cst.BaseExpression]) -> None:
        if "intermediate_outputs" in keywords or "x" in keywords:
            message = "intermediate_outputs: call graph[name] by hand, or register hooks on it"
            self._block(message, self.found.kind(name))
        by_place = [argument.value for argument in node.args if argument.keyword is None]
        c = keywords.get("c", by_place[1] if len(by_place) > 1 else None)
        if c is None or isinstance(c, (cst.List, cst.Tuple)) or dotted(c) == "None":
            return
        count = self.found.lists.count(node, dotted(c))
        if count not in (None, UNKNOWN) or self.found.kind(name) != "graphs":
            return
        if self.found.declared(name) < 2:  # several may come in a list as well
            self._advise("pass one condition as a tensor, several as a tuple", name)

    def _append(self, name: str, node: cst.Call, keywords: dict[str, cst.BaseExpression]) -> None:
        chain = self.found.chains[name]
        depth = len(chain.parents)
        if self.statements[:depth] != chain.parents:
            self._block("append far from where the SequenceINN is made: build the graph in one place", "chains")
            return
        chain.last = self.statements[depth]
        if len([argument for argument in node.args if argument.keyword is None and not argument.star]) != 1:
            self._block("append with conditions by position: name them, cond=0, cond_shape=(...)", "chains")
        cond, shape = keywords.get("cond"), keywords.get("cond_shape")
        in_branch = is_in_branch(self.statements[depth:-1])
        chain.layers.add((int(cond.value) if isinstance(cond, cst.Integer) else None, in_branch))
        for argument in node.args:
            written = keys_of(argument.value) if argument.star else set()
            keys = self.found.dicts.get(dotted(argument.value)) if written is None else written
            if argument.star == "*":
                self._block(f"*{dotted(argument.value)}: write out what it holds", "chains")
            elif keys is None:
                self._advise(f"**{dotted(argument.value)} must hold no cond and no cond_shape: write these out", name)
            elif keys & {"cond", "cond_shape"}:
                self._block(f"a condition in **{dotted(argument.value)}: write out cond=0, cond_shape=(...)", "chains")
        if cond is None or dotted(cond) == "None":
            return
        if not isinstance(cond, cst.Integer) or shape is None:
            self._block("a condition whose number or shape is computed: declare ig.ConditionNode(...)", "chains")
            return
        elements = [dotted(each.value) for each in shape.elements] if isinstance(shape, cst.Tuple) else ()
        own = ", ".join(elements) or f"*{dotted(shape)}"
        if chain.conditions.setdefault(int(cond.value), own) != own:
            self._block(f"condition {cond.value} with two shapes: declare an ig.ConditionNode for each", "chains")

    def leave_Module(self, original_node: cst.Module) -> None:
        for chain in self.found.chains.values():
            for number in filter(chain.may_lack, chain.conditions):
                message = f"layers that read condition {number} are appended in branches: build a graph in each branch"
                self.found.notes.append(Note(chain.start, message, frozenset({"chains"})))

    def visit_Attribute(self, node: cst.Attribute) -> None:
        base, name = dotted(node.value), node.attr.value
        self._check_draws(node)
        if base in self.found.networks:
            kind = self.found.kind(base)
            if name in ("log_jacobian", "jacobian"):
                self._block(f".{name}(...) is of FrEIA before 0.2: write z, log_jac = net(x, c=c)", kind)
            elif name in _READ:
                message = f".{name} of a network: a native graph has graph[name], graph.layers, in_shapes, out_shapes"
                self._block(message, kind)
            elif name in ("named_parameters", "named_modules", "named_children"):
                self._block(f".{name}(): keys of a native graph are layers.<name of the node>.module. ...", kind)
            elif name == "load_state_dict":
                message = "FrEIA's checkpoints have other keys: python -m invgraph.freia.convert moves them"
                self._advise(f"{message}, but not the state of an optimizer", base)
        elif name == "load_state_dict":
            for each in [each for each in self.found.networks if each.startswith(f"{base}.")]:
                message = f"FrEIA's checkpoints have other keys for {each}: python -m invgraph.freia.convert moves them"
                self._advise(f"{message}, but not the state of an optimizer", each)
        elif name in ("output_dims", "input_dims") and not self.layers:
            self._block(f".{name} of a node: a native node has .shapes, a value .shape", "graphs")

    def visit_Name(self, node: cst.Name) -> None:
        self._check_draws(node)

    def _check_draws(self, node: cst.BaseExpression) -> None:
        """Note what draws from numpy's global generator, and what reseeds it in FrEIA."""
        name = self.freia(node)
        if name == "PermuteRandom" and "seed" in dotted(self.statements[-1]):
            self.found.reseeding = self.found.reseeding or self.statements[-1]
        elif name in ("PermuteRandom", "AllInOneBlock", "OrthogonalTransform"):
            self.found.draws = True
        self.found.draws |= self.numpy_random(node) not in _NO_DRAWS

    def visit_Subscript(self, node: cst.Subscript) -> None:
        if dotted(node.value) in self.found.chains:
            self._block("a layer or slice of a SequenceINN: a native graph has graph[name]", "chains")

    def _block(self, message: str, *kinds: str) -> None:
        """Note what keeps networks of some kinds from being native; of all kinds where none is named."""
        self.found.notes.append(Note(self.statements[-1], message, frozenset(kinds) or ALL))

    def _advise(self, message: str, name: str) -> None:
        """Note what to look at if a network becomes native."""
        self.found.notes.append(Note(self.statements[-1], message, native=self.found.kind(name)))
