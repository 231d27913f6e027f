"""From FrEIA's nodes to a native graph."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from invgraph.errors import GraphError
from invgraph.freia.contract import Contract
from invgraph.freia.framework.node import ConditionNode, FeedForwardNode, InputNode, Node, OutputNode
from invgraph.freia.modules.base import InvertibleModule
from invgraph.freia.runner import Runner
from invgraph.graph import node as native
from invgraph.graph.graph import Graph
from invgraph.shapes import Shape

_RESERVED = {*dir(nn.ModuleDict()), *vars(nn.ModuleDict())}


def in_order(nodes: Sequence[Node], outputs: Sequence[OutputNode]) -> list[Node]:
    """Return the nodes that the outputs depend on, each after what it reads.

    The order is one that FrEIA gives, and the same in each process. It numbers the modules in checkpoints.

    Raises:
        GraphError: If a node reads another that is not in the list.
    """
    listed = set(nodes)
    for node in nodes:
        for source in (*(source for source, _ in node.inputs), *node.conditions):
            if source not in listed:
                raise GraphError("GraphINN", f"{node!r} reads {source!r}", "the latter is not in the list of nodes")
    readers: dict[Node, set[Node]] = {node: set() for node in nodes}
    for node in nodes:
        for source in _read(node):
            readers[source].add(node)
    found: list[Node] = []
    waiting: deque[Node] = deque(outputs)
    while waiting:
        node = waiting.popleft()
        found.append(node)
        for source in _read(node):
            readers[source].discard(node)
            if not readers[source]:
                waiting.append(source)
    return found[::-1]


def _read(node: Node) -> dict[Node, None]:
    """Return the nodes that must run before this one, each once."""
    inner = (condition for condition in node.conditions if not isinstance(condition, ConditionNode))
    return dict.fromkeys((*(source for source, _ in node.inputs), *inner))


def unique_names(names: Iterable[str]) -> list[str]:
    """Return names that can be keys of a native graph: each one once, without dots, none reserved."""
    wanted = [re.sub(r"\W+", "_", name) or "node" for name in names]
    counts: Counter[str] = Counter()
    taken: set[str] = set()
    for index, name in enumerate(wanted):
        unique = name
        while unique in taken or unique in _RESERVED:
            counts[name] += 1
            unique = f"{name}_{counts[name]}"
        taken.add(unique)
        wanted[index] = unique
    return wanted


def as_runner(
    nodes: Sequence[Node],
    inputs: Sequence[InputNode],
    outputs: Sequence[OutputNode],
    conditions: Sequence[ConditionNode],
    *,
    bare: bool,
) -> Runner:
    """Return the native graph of sorted nodes, ready to run.

    Arguments:
        nodes: The nodes, sorted.
        inputs: The inputs, in the order of a call.
        outputs: The outputs, in the order of what a call returns.
        conditions: The conditions, in the order of a call; one that no node reads is left out of the graph.
        bare: True if one output alone is returned as a tensor.
    """
    read = {condition for node in nodes for condition in node.conditions}
    used = [place for place, condition in enumerate(conditions) if condition in read]
    given = [conditions[place] for place in used]
    everything = [*inputs, *given, *(node for node in nodes if node.module is not None)]
    names = dict(zip(everything, unique_names(node.name for node in everything), strict=True))
    values: dict[Node, tuple[native.Value, ...]] = {}
    for start in (*inputs, *given):
        kind = native.InputNode if isinstance(start, InputNode) else native.ConditionNode
        values[start] = kind(*_declared(start.dims), name=names[start]).outputs
    for node in nodes:
        if isinstance(node, FeedForwardNode):
            values[node] = _feature(node, [values[condition][0] for condition in node.conditions], names[node])
        elif node.module is not None:
            given_dims = [_declared(dims) for dims in node.condition_dims]
            layer = Contract(node.module, node.input_dims, given_dims, node.output_dims, any_size=True)
            sources = [values[source][index] for source, index in node.inputs]
            seen = [values[condition][0] for condition in node.conditions]
            values[node] = native.Node(sources, layer, conditions=seen, name=names[node]).outputs
    results = [values[node][index] for (node, index) in (output.inputs[0] for output in outputs)]
    starts = [values[node][0] for node in inputs]
    graph = Graph(
        _alone(starts, len(starts) == 1), _alone(results, bare), _alone([values[c][0] for c in given], len(given) == 1)
    )
    for node in nodes:
        if node.module is not None and not isinstance(node, FeedForwardNode):
            graph[names[node]].label = f"node {node.name!r} ({type(node.module).__name__})"  # type: ignore[assignment]
    return Runner(graph, tuple(used))


def _declared(dims: Shape) -> Shape:
    """Return the shape of a native condition: FrEIA declares one that is a seed or None as ``ConditionNode(0)``."""
    return tuple(size or 1 for size in dims)


def _feature(node: FeedForwardNode, read: list[native.Value], name: str) -> tuple[native.Value, ...]:
    """Return the output of a network of conditions, of the shape that it was declared with."""
    if isinstance(node.module, InvertibleModule):
        given = f"the invertible {type(node.module).__name__}"
        raise GraphError(repr(node), given, "a FeedForwardNode takes a plain network: use Node for layers")
    feature = native.FeatureNode(read, node.module, name=name)
    if feature.shapes != (node.module_output_dims,):
        given = (
            f"output_dims={node.module_output_dims} for a network that returns {', '.join(map(str, feature.shapes))}"
        )
        raise GraphError(repr(node), given, "declare the shape of the network's output, without the batch")
    return feature.outputs


def _alone(values: list[native.Value], bare: bool) -> Any:
    return values[0] if bare else values
