"""The inputs, outputs and conditions of a graph, from a list of its nodes as FrEIA takes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from invgraph.errors import ArgumentError
from invgraph.graph.node import ConditionNode, Declaration, FeatureNode, InputNode, Source, Value


def sides(nodes: Iterable[Source]) -> tuple[Any, Any, Any]:
    """Return inputs, outputs and conditions of a native graph from a list of its nodes: ``ig.Graph(*sides(nodes))``.

    The outputs are the values that no node of the list reads. Each side is in the order of the list. An output has the
    place where it is listed last; if its value is listed itself, the place of its node does not count. A side of one
    value is returned bare.

    Arguments:
        nodes: Native nodes and values, in any order. Conditions that nothing reads are left out.

    Example:
        >>> import torch, invgraph as ig
        >>> nodes = [ig.InputNode(4, name="x")]
        >>> for seed in range(3):
        ...     nodes.append(ig.Node(nodes[-1], ig.Permute, {"seed": seed}))
        >>> ig.Graph(*ig.freia.sides(nodes))(torch.zeros(2, 4))[0].shape
        torch.Size([2, 4])
    """
    nodes = list(nodes)
    themselves = {source for source in nodes if isinstance(source, Value)}
    listed: list[Value] = []
    placed: list[Value] = []
    for source in nodes:
        if not isinstance(source, (Declaration, Value)):
            raise ArgumentError("sides", f"a list with a {type(source).__name__}", "expected native nodes and values")
        values = source.outputs if isinstance(source, Declaration) else (source,)
        listed += values
        placed += values if isinstance(source, Value) else (value for value in values if value not in themselves)
    makers = {value.node for value in listed}
    transformed = {value for node in makers for value in node.sources}
    read = {value for node in makers for value in node.conditions}
    inputs = [value for value in dict.fromkeys(listed) if isinstance(value.node, InputNode)]
    conditions = [value for value in dict.fromkeys(listed) if isinstance(value.node, ConditionNode) and value in read]
    last = list(dict.fromkeys(placed[::-1]))[::-1]
    beside = (ConditionNode, FeatureNode)
    outputs = [value for value in last if value not in transformed and not isinstance(value.node, beside)]
    bare = [values[0] if len(values) == 1 else values for values in (inputs, outputs, conditions)]
    return bare[0], bare[1], bare[2]
