"""Second pass over a script: imports, and where nothing keeps them from it, native graphs in place of networks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import libcst as cst

from invgraph.freia.rewrite.found import Found
from invgraph.freia.rewrite.layers import NATIVE, native_args
from invgraph.freia.rewrite.lists import UNKNOWN
from invgraph.freia.rewrite.names import GRAPHS, Resolver, dotted

_PARAMS = ("inputs", "module_type", "module_args", "conditions", "name")
_CALL = ("x_or_z", "c", "rev", "jac", "intermediate_outputs")


class Transform(cst.CSTTransformer, Resolver):
    """Rewrite a script.

    Arguments:
        found: Contents of the script, from the survey.
    """

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found
        self.starred = found.starred
        self.natives, kept = found.natives(), found.kept()
        self.graphs, self.chains = bool(self.natives) and "graphs" not in kept, "chains" in self.natives
        self.alone = bool(self.natives) and not kept
        self.imported = False
        self.notes = found.comments()
        self.starts = {chain.start: name for name, chain in found.chains.items()}
        self.ends = {chain.last: name for name, chain in found.chains.items()}

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        result = super().on_leave(original_node, updated_node)
        if not isinstance(original_node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            return result
        if not isinstance(result, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            return result
        statements: list[Any] = [result]
        if self.chains and original_node in self.starts:
            statements = self._start_chain(self.starts[original_node], original_node, result)
        if self.chains and original_node in self.ends:
            name = self.ends[original_node]
            parts = [f"{_local(name)}_x", f"{_local(name)}_h", *self._conditions(name)]
            statements.append(_statement(f"{name} = ig.Graph({', '.join(parts)})"))
        notes = [
            cst.EmptyLine(comment=cst.Comment(f"# invgraph: {note}")) for note in self.notes.get(original_node, [])
        ]
        if notes:
            statements[0] = statements[0].with_changes(leading_lines=[*statements[0].leading_lines, *notes])
        # One statement stays one: the place of an elif takes no sequence.
        return statements[0] if len(statements) == 1 else cst.FlattenSentinel(statements)

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> Any:
        aliases = [alias for alias in updated_node.names if not (self.alone and _is(alias.name, "FrEIA.framework"))]
        changed = [_import_alias(alias) if _is(alias.name, "FrEIA") else alias for alias in aliases]
        changed = [alias for index, alias in enumerate(changed) if dotted(alias) not in map(dotted, changed[:index])]
        return self._imports(updated_node, aliases, changed, any(_is(a.name, "FrEIA") for a in updated_node.names))

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> Any:
        module = updated_node.module
        if module is None or not _is(module, "FrEIA"):
            return updated_node
        if self.alone and _is(module, "FrEIA.framework"):
            return self._imports(updated_node, [], [], True)
        ours = updated_node.with_changes(module=_expression(f"invgraph.freia{dotted(module)[5:]}"))
        if isinstance(updated_node.names, cst.ImportStar) or dotted(module) != "FrEIA" or not self.alone:
            return self._imports(ours, [], updated_node.names, True)
        kept = [alias for alias in updated_node.names if dotted(alias.name) != "framework"]
        return self._imports(ours, kept, kept, True)

    def _imports(self, node: Any, aliases: Any, changed: Any, own: bool) -> Any:
        """Return an import of what is left; the first of FrEIA's also imports the library."""
        if not own:
            return node
        first = bool(self.natives) and not self.imported
        self.imported = self.imported or first
        left = not isinstance(changed, Sequence) or len(changed) > 0
        if isinstance(changed, Sequence) and changed:
            changed = [*changed[:-1], changed[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)]
        parts = [_small("import invgraph as ig")] if first else []
        parts += [node.with_changes(names=changed)] if left else []
        return cst.FlattenSentinel(parts) if parts else cst.RemoveFromParent()

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        """Give imports that were added a line each."""
        parts = list(updated_node.body)
        if len(parts) < 2 or dotted(parts[0]).strip(" ;") != "import invgraph as ig":
            return updated_node
        lines = [cst.SimpleStatementLine([part.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)]) for part in parts]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> Any:
        name, base = original_node.attr.value, original_node.value
        is_node = dotted(base) in self.found.nodes
        # Of a name that is no node's, out1 may be an attribute of the script's own.
        is_own = not is_node and isinstance(base, (cst.Name, cst.Attribute)) and self.found.lists.sets(name)
        if self.graphs and re.fullmatch(r"out\d+", name) and not is_own:
            return _expression(f"{dotted(updated_node.value)}[{name[3:]}]")
        if self.graphs and name == "module" and is_node:
            return updated_node.with_changes(value=cst.Attribute(updated_node.value, cst.Name("module")))
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> Any:
        name, kind = dotted(original_node.func), self.freia(original_node.func)
        if name in self.found.networks:
            native = self.found.kind(name) in self.natives
            return self._network_call(name, original_node, updated_node) if native else updated_node
        if name.removesuffix(".append") in self.found.chains and name.endswith(".append"):
            return self._append(name.removesuffix(".append"), updated_node) if self.chains else updated_node
        if not self.graphs:
            return updated_node
        if kind in ("InputNode", "ConditionNode"):
            return updated_node.with_changes(func=_expression(f"ig.{kind}"))
        if kind == "OutputNode":
            value = _value(updated_node.args[0].value)
            value = value.elements[0].value if isinstance(value, cst.List) else value
            # The node is in the list of the graph as well; its value, listed here, tells where the output belongs.
            is_node = dotted(value) in self.found.nodes and self.found.lists.bound[dotted(value)] == 1
            return _expression(f"{dotted(value)}[0]") if is_node else value
        if kind == "Node":
            return self._node(original_node, updated_node)
        if kind in GRAPHS:
            return _expression(f"ig.Graph(*ig.freia.sides({dotted(updated_node.args[0].value)}))")
        return updated_node

    def _node(self, original: cst.Call, node: cst.Call) -> Any:
        given, before = _bound(node, _PARAMS), _bound(original, _PARAMS)
        given["inputs"] = _value(given["inputs"])
        if "name" in given:
            given["name"] = _undotted(given["name"])
        kind = self.freia(before["module_type"])
        args = native_args(kind, given.get("module_args"))
        if args is None or "conditions" in given or not self._names_outputs(before["inputs"]):
            keep = [dotted(given["inputs"]), dotted(given["module_type"])]
            keep += [dotted(given["module_args"])] if "module_args" in given else []
            function = "ig.freia.node"
        else:
            keep = [dotted(given["inputs"]), f"ig.{NATIVE[kind][0]}", *([args] if args != "{}" else [])]
            function = "ig.Node"
        keep += [f"{key}={dotted(given[key])}" for key in ("conditions", "name") if key in given]
        return _expression(f"{function}({', '.join(keep)})")

    def _names_outputs(self, source: cst.BaseExpression) -> bool:
        """False for a node of several outputs, or one that may have them: it stands for its first one in FrEIA."""
        if isinstance(source, cst.Attribute) and re.fullmatch(r"out\d+", source.attr.value):
            return True
        if isinstance(source, (cst.Tuple, cst.List)):
            elements = [element.value for element in source.elements]
            return isinstance(elements[-1], cst.Integer) or all(map(self._names_outputs, elements))
        name = dotted(source)
        return name not in self.found.splits if name in self.found.nodes else not self.found.several

    def _append(self, name: str, node: cst.Call) -> Any:
        """Return the expression that makes a chain's next node; the statement around it becomes an assignment."""
        keywords = {a.keyword.value: a.value for a in node.args if a.keyword is not None}
        module = next(a.value for a in node.args if a.keyword is None and not a.star)
        stars = [f"**{dotted(a.value)}" for a in node.args if a.star == "**"]
        own = [f'"{key}": {dotted(value)}' for key, value in keywords.items() if key not in ("cond", "cond_shape")]
        parts = [f"{_local(name)}_h", dotted(module)]
        parts += [f"{{{', '.join([*own, *stars])}}}"] if own or stars else []
        if "cond" in keywords and dotted(keywords["cond"]) != "None":
            parts.append(f"conditions={_local(name)}_c{dotted(keywords['cond'])}")
        return _expression(f"ig.freia.node({', '.join(parts)})")

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> Any:
        call = original_node.value
        if self.chains and isinstance(call, cst.Call) and dotted(call.func).endswith(".append"):
            name = dotted(call.func).removesuffix(".append")
            if name in self.found.chains:
                return _small(f"{_local(name)}_h = {dotted(updated_node.value)}")
        return updated_node

    def _start_chain(self, name: str, original: Any, updated: Any) -> list[Any]:
        call = original.body[0].value
        sizes = ", ".join(dotted(argument.value) if not argument.star else f"*{dotted(argument.value)}"
                          for argument in call.args)  # fmt: skip
        first = _statement(f'{_local(name)}_x = {_local(name)}_h = ig.InputNode({sizes}, name="x")')
        lines = [first.with_changes(leading_lines=updated.leading_lines)]
        for number, shape in sorted(self.found.chains[name].conditions.items()):
            lines.append(_statement(f'{_local(name)}_c{number} = ig.ConditionNode({shape}, name="c{number}")'))
        return lines

    def _conditions(self, name: str) -> list[str]:
        names = [f"{_local(name)}_c{number}" for number in sorted(self.found.chains[name].conditions)]
        return names if len(names) < 2 else [f"({', '.join(names)})"]

    def _network_call(self, name: str, call: cst.Call, node: cst.Call) -> Any:
        given = _bound(node, _CALL)
        if "x_or_z" not in given:
            return node
        parts = [self._tensors(call, given["x_or_z"])]
        numbers = self.found.conditions_of(name)
        if "c" in given and dotted(given["c"]) != "None":
            c = self._tensors(call, given["c"]) if numbers is None else _picked(given["c"], numbers)
            parts += [c] if c else []
        rev = dotted(given["rev"]) if "rev" in given else "False"
        called = {"True": f"{name}.inverse", "False": name}.get(rev, f"({name}.inverse if {rev} else {name})")
        return _expression(f"{called}({', '.join(parts)})")

    def _tensors(self, call: cst.Call, values: cst.BaseExpression) -> str:
        """Return one value bare and several in a tuple."""
        if isinstance(values, (cst.List, cst.Tuple)):
            if any(isinstance(element, cst.StarredElement) for element in values.elements):
                return f"tuple({dotted(values)})"
            return _together([dotted(element.value) for element in values.elements])
        count = self.found.lists.count(call, dotted(values))
        if count is None or count == UNKNOWN:
            return dotted(values)
        return f"{dotted(values)}[0]" if count == 1 else f"tuple({dotted(values)})"


def _picked(c: cst.BaseExpression, numbers: Sequence[int]) -> str:
    """Return the conditions that a chain reads, from the list of a call."""
    if isinstance(c, (cst.List, cst.Tuple)):
        return _together([dotted(c.elements[number].value) for number in numbers])
    return _together([f"{dotted(c)}[{number}]" for number in numbers])


def _together(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({', '.join(values)})" if values else ""


def _bound(node: cst.Call, names: Sequence[str]) -> dict[str, cst.BaseExpression]:
    """Return the arguments of a call by name; None counts as left out."""
    given: dict[str, cst.BaseExpression] = {}
    for index, argument in enumerate(node.args):
        name = names[index] if argument.keyword is None else argument.keyword.value
        if dotted(argument.value) != "None":
            given[name] = argument.value
    return given


def _value(source: cst.BaseExpression) -> Any:
    """Return what a node reads: ``(node, 1)`` becomes ``node[1]``."""
    if isinstance(source, (cst.Tuple, cst.List)):
        elements = [element.value for element in source.elements]
        if len(elements) == 2 and isinstance(elements[1], cst.Integer):
            return _expression(f"{dotted(elements[0])}[{elements[1].value}]")
        return _expression(f"[{', '.join(dotted(_value(element)) for element in elements)}]")
    return source


def _undotted(name: cst.BaseExpression) -> cst.BaseExpression:
    """Return a name with underscores for dots, which names of native nodes do not have."""
    if isinstance(name, (cst.SimpleString, cst.FormattedStringText)):
        return name.with_changes(value=name.value.replace(".", "_"))
    if isinstance(name, cst.ConcatenatedString):
        return name.with_changes(left=_undotted(name.left), right=_undotted(name.right))
    if isinstance(name, cst.FormattedString):
        texts = [_undotted(part) if isinstance(part, cst.FormattedStringText) else part for part in name.parts]  # type: ignore[arg-type]
        return name.with_changes(parts=texts)
    return name


def _import_alias(alias: cst.ImportAlias) -> cst.ImportAlias:
    ours = _expression(f"invgraph.freia{dotted(alias.name)[5:]}")
    if alias.asname is not None:
        return alias.with_changes(name=ours)
    return alias.with_changes(
        name=_expression("invgraph.freia"),
        asname=cst.AsName(cst.Name("FrEIA"), cst.SimpleWhitespace(" "), cst.SimpleWhitespace(" ")),
    )


def _is(name: cst.CSTNode, package: str) -> bool:
    return dotted(name) == package or dotted(name).startswith(f"{package}.")


def _local(name: str) -> str:
    return name.rpartition(".")[2]


def _expression(code: str) -> Any:  # a Name or Attribute where one is needed, which libcst's types can't tell
    return cst.parse_expression(code)


def _statement(code: str) -> Any:
    return cst.parse_statement(code)


def _small(code: str) -> Any:
    return _statement(code).body[0]
