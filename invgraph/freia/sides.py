"""The inputs, outputs and conditions of a graph, from a list of its nodes as FrEIA takes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from invgraph.errors import ArgumentError
from invgraph.graph.node import ConditionNode, Declaration, FeatureNode, InputNode, Source, Value


def sides(nodes: Iterable[Source]) -> tuple[Any, Any, Any]:
    """Return inputs, outputs and conditions of a native graph from a list of its nodes: ``ig.Graph(*sides(nodes))``.

    The outputs are the values that no node of the list reads. Each side is in the order of the list. An output has its
    last place there, that of the value itself if it is listed beside its node; one value alone is returned bare.

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
    listed: list[Value] = []
    own: set[Value] = set()
    places: dict[Value, int] = {}
    for source in nodes:
        if not isinstance(source, (Declaration, Value)):
            raise ArgumentError("sides", f"a list with a {type(source).__name__}", "expected native nodes and values")
        values = source.outputs if isinstance(source, Declaration) else (source,)
        own.update(() if isinstance(source, Declaration) else values)
        places.update({value: len(listed) for value in values if isinstance(source, Value) or value not in own})
        listed += values
    makers = {value.node for value in listed}
    transformed = {value for node in makers for value in node.sources}
    read = {value for node in makers for value in node.conditions}
    inputs = [value for value in dict.fromkeys(listed) if isinstance(value.node, InputNode)]
    conditions = [value for value in dict.fromkeys(listed) if isinstance(value.node, ConditionNode) and value in read]
    last = sorted(places, key=lambda value: places[value])
    beside = (ConditionNode, FeatureNode)
    outputs = [value for value in last if value not in transformed and not isinstance(value.node, beside)]
    bare = [values[0] if len(values) == 1 else values for values in (inputs, outputs, conditions)]
    return bare[0], bare[1], bare[2]
