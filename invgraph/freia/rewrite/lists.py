"""The number of elements of lists and tuples in a script, where that can be told."""

from __future__ import annotations

from collections.abc import Iterable

import libcst as cst

from invgraph.freia.rewrite.names import dotted

Scope = tuple[str, ...]
"""Names of the functions around a statement, from outside to inside."""

UNKNOWN = -1
"""Number of elements of a variable that may be no list, or have another number of elements elsewhere."""

_CHANGES = {"append", "extend", "insert", "pop", "remove", "clear"}


class Lists(cst.CSTVisitor):
    """Number of elements of each variable that is bound in a script, by the function that binds it."""

    def __init__(self) -> None:
        super().__init__()
        self.scope: Scope = ()
        self.counts: dict[tuple[Scope, str], int] = {}

    def count(self, scope: Scope, name: str) -> int | None:
        """Return the number of elements of a variable in a function; None if nothing in the script binds it."""
        key = self._key(scope, name)
        return None if key is None else self.counts[key]

    def sets(self, attribute: str) -> bool:
        """True if the script itself sets an attribute of this name."""
        return any(name.endswith(f".{attribute}") for _, name in self.counts)

    def _key(self, scope: Scope, name: str) -> tuple[Scope, str] | None:
        keys = ((scope[:depth], name) for depth in range(len(scope), -1, -1))
        return next((key for key in keys if key in self.counts), None)

    def _bind(self, target: cst.CSTNode, count: int) -> None:
        if isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self._bind(element.value, UNKNOWN)
            return
        name = dotted(target)
        key = ((), name) if "." in name else (self.scope, name)  # an attribute is the same in all methods
        self.counts[key] = count if self.counts.get(key, count) == count else UNKNOWN

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.scope = (*self.scope, node.name.value)
        for param in (*node.params.posonly_params, *node.params.params, *node.params.kwonly_params):
            self._bind(param.name, UNKNOWN)

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self.scope = self.scope[:-1]

    def visit_Assign(self, node: cst.Assign) -> None:
        self._assign([target.target for target in node.targets], node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self._assign([node.target], node.value)

    def _assign(self, targets: Iterable[cst.CSTNode], value: cst.BaseExpression) -> None:
        elements = value.elements if isinstance(value, (cst.List, cst.Tuple)) else None
        known = elements is not None and not any(isinstance(element, cst.StarredElement) for element in elements)
        for target in targets:
            if known and elements is not None and isinstance(target, (cst.Tuple, cst.List)):
                for part, element in zip(target.elements, elements, strict=False):
                    self._assign([part.value], element.value)
            else:
                self._bind(target, len(elements) if known and elements is not None else UNKNOWN)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._forget(dotted(node.target))

    def visit_For(self, node: cst.For) -> None:
        self._bind(node.target, UNKNOWN)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._bind(node.name, UNKNOWN)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._assign([node.target], node.value)

    def visit_Call(self, node: cst.Call) -> None:
        if isinstance(node.func, cst.Attribute) and node.func.attr.value in _CHANGES:
            self._forget(dotted(node.func.value))

    def _forget(self, name: str) -> None:
        key = self._key(self.scope, name)
        if key is not None:
            self.counts[key] = UNKNOWN
