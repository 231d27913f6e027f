"""The number of elements of lists and tuples in a script, where that can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import libcst as cst

from invgraph.freia.rewrite.names import dotted

Scope = tuple[str, ...]
"""Names of the classes and functions around a statement, from outside to inside."""

UNKNOWN = -1
"""Number of elements of a variable that is no list, or has another number of elements elsewhere."""

_NAMED = (cst.ClassDef, cst.FunctionDef)
_SCOPES = (*_NAMED, cst.Lambda, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)
_CHANGES = {"append", "extend", "insert", "pop", "remove", "clear"}


class Lists(cst.CSTVisitor):
    """Number of elements of the variables of a script, by the function that binds them.

    Attributes:
        bound: How often each name is bound, anywhere in the script.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bound: Counter[str] = Counter()
        self._scope: Scope = ()
        self._scopes: dict[cst.Call, Scope] = {}
        self._counts: dict[tuple[Scope, str], int] = {}
        self._changed: set[tuple[Scope, str]] = set()
        self._outer: set[tuple[Scope, str]] = set()

    def count(self, call: cst.Call, name: str) -> int | None:
        """Return the number of elements of a variable in a call, or ``UNKNOWN``; None if nothing binds it."""
        key = self._key(self._scopes[call], name)
        return None if key is None else UNKNOWN if key in self._changed else self._counts[key]

    def sets(self, attribute: str) -> bool:
        """True if the script itself sets an attribute of this name."""
        return any(name.endswith(f".{attribute}") for _, name in self._counts)

    def _key(self, scope: Scope, name: str) -> tuple[Scope, str] | None:
        keys = ((scope[:depth], name) for depth in range(len(scope), -1, -1))
        return next((key for key in keys if key in self._counts), None)

    def _bind(self, target: cst.CSTNode, count: int = UNKNOWN) -> None:
        """Note a binding; where a name is bound to a list and to something else, it is the list that is passed on."""
        if isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self._bind(element.value)
            return
        name = dotted(target)
        self.bound[name] += 1
        is_shared = "." in name or (self._scope, name) in self._outer  # an attribute is the same in all methods
        key = ((), name) if is_shared else (self._scope, name)
        before = self._counts.get(key, UNKNOWN)
        if UNKNOWN not in (before, count) and before != count:
            self._changed.add(key)
        self._counts[key] = before if count == UNKNOWN else count

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _SCOPES):
            self._scope = (*self._scope, node.name.value if isinstance(node, _NAMED) else type(node).__name__)
        return super().on_visit(node)

    def on_leave(self, original_node: cst.CSTNode) -> None:
        super().on_leave(original_node)
        if isinstance(original_node, _SCOPES):
            self._scope = self._scope[:-1]

    def visit_Param(self, node: cst.Param) -> None:
        self._bind(node.name)

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self._bind(node.target)

    def visit_NameItem(self, node: cst.NameItem) -> None:
        self._outer.add((self._scope, node.name.value))

    def visit_Assign(self, node: cst.Assign) -> None:
        self._assign([target.target for target in node.targets], node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self._assign([node.target], node.value)

    def _assign(self, targets: Iterable[cst.CSTNode], value: cst.BaseExpression) -> None:
        elements = value.elements if isinstance(value, (cst.List, cst.Tuple)) else ()
        known = isinstance(value, (cst.List, cst.Tuple)) and not any(
            isinstance(element, cst.StarredElement) for element in elements
        )
        for target in targets:
            if known and isinstance(target, (cst.Tuple, cst.List)):
                for part, element in zip(target.elements, elements, strict=False):
                    self._assign([part.value], element.value)
            else:
                self._bind(target, len(elements) if known else UNKNOWN)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._change(dotted(node.target))

    def visit_For(self, node: cst.For) -> None:
        self._bind(node.target)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._bind(node.name)

    def visit_MatchAs(self, node: cst.MatchAs) -> None:
        if node.name is not None:
            self._bind(node.name)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._assign([node.target], node.value)

    def visit_Call(self, node: cst.Call) -> None:
        self._scopes[node] = self._scope
        if isinstance(node.func, cst.Attribute) and node.func.attr.value in _CHANGES:
            self._change(dotted(node.func.value))

    def _change(self, name: str) -> None:
        self._changed.add(self._key(self._scope, name) or ((), name))
