"""Conditions of a script that no node reads, which FrEIA's networks take and native graphs do not."""

from __future__ import annotations

from collections import Counter

import libcst as cst

from invgraph.freia.rewrite.found import Note
from invgraph.freia.rewrite.names import Resolver, dotted


class Unread(cst.CSTVisitor, Resolver):
    """Names of the conditions of a script, and of those that nodes read, as far as names tell."""

    def __init__(self, starred: set[str]) -> None:
        super().__init__()
        self.starred = starred
        self.made: dict[str, cst.CSTNode] = {}
        self.read: set[str] = set()
        self.passed: set[str] = set()
        self.statement: cst.CSTNode | None = None

    def visit_SimpleStatementLine(self, node: cst.SimpleStatementLine) -> None:
        self.statement = node

    def visit_Assign(self, node: cst.Assign) -> None:
        if len(node.targets) > 1:  # one condition of several names
            return
        target = node.targets[0].target
        names: list[cst.CSTNode] = [target]
        values: list[cst.BaseExpression] = [node.value]
        if isinstance(target, cst.Tuple) and isinstance(node.value, cst.Tuple):
            names, values = [part.value for part in target.elements], [part.value for part in node.value.elements]
        for name, value in zip(names, values, strict=False):
            if isinstance(value, cst.Call) and self.freia(value.func) == "ConditionNode" and self.statement:
                self.made[dotted(name)] = self.statement

    def visit_Arg(self, node: cst.Arg) -> None:
        self.passed.add(dotted(node.value))

    def visit_Call(self, node: cst.Call) -> None:
        if self.freia(node.func) not in ("Node", "FeedForwardNode"):
            return
        by_place = [argument.value for argument in node.args if argument.keyword is None][3:4]
        named = [
            argument.value for argument in node.args if argument.keyword and argument.keyword.value == "conditions"
        ]
        for value in (*by_place, *named):
            listed = [part.value for part in value.elements] if isinstance(value, (cst.List, cst.Tuple)) else [value]
            self.read.update(map(dotted, listed))

    def notes(self, bound: Counter[str]) -> list[Note]:
        """Return a note on each condition that nothing reads; none if names do not tell.

        Arguments:
            bound: How often each name of the script is bound.
        """
        if not self.read - {"None"} <= set(self.made) or any(bound[name] > 1 for name in self.read | set(self.made)):
            return []
        known = self.read | self.passed
        message = "no node reads {}: leave it out here, and in the list of conditions of each call"
        blocks = frozenset({"graphs"})
        return [Note(made, message.format(name), blocks) for name, made in self.made.items() if name not in known]
