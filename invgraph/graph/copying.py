"""Copies of nodes with all that they read, however deep; Python's own copying would recurse once for each node."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any


class CopiedNode:
    """Base class of nodes: a deep copy reads copies of what the node reads, and has a copy of its layer."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        waiting: list[Any] = [self]
        while waiting:
            node = waiting[-1]
            unread = [value.node for value in (*node.sources, *node.conditions) if id(value.node) not in memo]
            if unread and id(node) not in memo:
                waiting += unread
                continue
            waiting.pop()
            if id(node) not in memo:
                _copy(node, memo)
        return memo[id(self)]


class CopiedValue:
    """Base class of values: a deep copy is the value of a deep copy of its node."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        own: Any = self
        return copy.deepcopy(own.node, memo).outputs[own.index]


def _copy(node: Any, memo: dict[int, Any]) -> None:
    """Copy a node, all sources of which are copied already."""
    fields = dict(vars(node))
    new = memo[id(node)] = object.__new__(type(node))
    for name in ("sources", "conditions"):
        if name in fields:
            fields[name] = tuple(memo[id(value.node)].outputs[value.index] for value in fields[name])
    if "module" in fields:
        fields["module"] = copy.deepcopy(fields["module"], memo)
    fields["outputs"] = tuple(replace(value, node=new) for value in node.outputs)
    new.__dict__.update(fields)
