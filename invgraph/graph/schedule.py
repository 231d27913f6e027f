"""The order in which the nodes of a graph run, in both directions, over numbered slots that hold the values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from invgraph.core.call import Ports
from invgraph.errors import GraphError
from invgraph.graph.node import FeatureNode, Node, Value
from invgraph.graph.wiring import Wiring
from invgraph.shapes import Shape


class Step(NamedTuple):
    """One node of a schedule.

    Attributes:
        layer: Place of the node's layer among the layers of the graph.
        feature: True if the node is a conditioning network, which is computed forward in both directions.
        inputs: Slots that the step transforms.
        conditions: Slots that it is conditioned on.
        outputs: Slots that it fills.
        idle: Slots that nothing reads after this step.
        shapes: Shapes of the features of a conditioning network, without the batch; empty for other nodes.
    """

    layer: int
    feature: bool
    inputs: tuple[int, ...]
    conditions: tuple[int, ...]
    outputs: tuple[int, ...]
    idle: tuple[int, ...]
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """One direction of a graph.

    Attributes:
        inverse: True for the inverse direction.
        steps: The nodes, in the order in which they run.
        slots: Number of slots; the first ones hold the conditions.
        starts: Slots of the values that a call brings.
        ends: Slots of the values that it returns.
        source: The ports of the values that a call brings.
        target: The ports of the values that it returns.
        conditions: The ports of the conditions.
        names: The names of the nodes, in the order of the graph's layers.
    """

    inverse: bool
    steps: tuple[Step, ...]
    slots: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    source: Ports
    target: Ports
    conditions: Ports
    names: tuple[str, ...]

    def value_names(self) -> dict[int, str]:
        """Return the names of the values of a forward schedule, by slot: ``split[0]`` for an output of several."""
        labels = dict(zip(range(len(self.conditions.names)), self.conditions.names, strict=True))
        labels.update(zip(self.starts, self.source.names, strict=True))
        for step in self.steps:
            name, several = self.names[step.layer], len(step.outputs) > 1
            labels.update((slot, f"{name}[{k}]" if several else name) for k, slot in enumerate(step.outputs))
        return labels

    def keep_everything(self) -> Schedule:
        """Return the same schedule, which empties no slot."""
        return replace(self, steps=tuple(step._replace(idle=()) for step in self.steps))


def schedules(wiring: Wiring) -> tuple[Schedule, Schedule]:
    """Return the forward and the inverse schedule of a graph.

    Raises:
        GraphError: If the graph has no inverse, because conditions form a cycle.
    """
    values = (*wiring.conditions, *wiring.inputs, *(value for node in wiring.nodes for value in node.outputs))
    slots = {value: slot for slot, value in enumerate(dict.fromkeys(values))}
    starts, ends = (tuple(slots[value] for value in side) for side in (wiring.inputs, wiring.outputs))
    inputs, outputs, conditions = wiring.ports()
    names = tuple(wiring.names[node] for node in _computing(wiring))
    forward, inverse = (_steps(wiring, slots, ends if not back else starts, back) for back in (False, True))
    return (
        Schedule(False, forward, len(slots), starts, ends, inputs, outputs, conditions, names),
        Schedule(True, inverse, len(slots), ends, starts, outputs, inputs, conditions, names),
    )


def _computing(wiring: Wiring) -> list[Node | FeatureNode]:
    """Return the nodes that hold a layer, in order of declaration."""
    return [node for node in wiring.nodes if isinstance(node, (Node, FeatureNode))]


def _order(wiring: Wiring, inverse: bool) -> list[Node | FeatureNode]:
    """Return the nodes in an order that depends on the wiring and the order of declaration alone."""
    import networkx as nx  # here, because it would cost a tenth of `import torch` at every import

    def maker(value: Value) -> Node | FeatureNode | None:
        """Return the node after which a value is known; None if the call brings it."""
        if inverse and not isinstance(value.node, FeatureNode):
            return wiring.consumer.get(value)
        return value.node if isinstance(value.node, (Node, FeatureNode)) else None

    graph = nx.DiGraph()
    for node in _computing(wiring):
        graph.add_node(node)
        read = node.outputs if inverse and isinstance(node, Node) else node.sources
        for value in (*read, *node.conditions):
            before = maker(value)
            if before is not None:
                graph.add_edge(before, node)
    try:
        sign = -1 if inverse else 1
        return list(nx.lexicographical_topological_sort(graph, key=lambda node: sign * node.order))
    except nx.NetworkXUnfeasible:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
        names = " -> ".join(wiring.names[node] for node in (*cycle, cycle[0]))
        advice = f"cannot be inverted: {names}: each needs the output of the next"
        advice += "; condition on what the inverse knows earlier"
        raise GraphError("Graph", "a cycle of conditions", advice) from None


def _steps(wiring: Wiring, slots: dict[Value, int], ends: tuple[int, ...], inverse: bool) -> tuple[Step, ...]:
    """Return the steps, each with the slots that nothing reads after it."""
    places = {node: place for place, node in enumerate(_computing(wiring))}
    needed = set(ends)
    steps: list[Step] = []
    for node in reversed(_order(wiring, inverse)):
        sources, outputs, conditions = (
            tuple(slots[value] for value in values) for values in (node.sources, node.outputs, node.conditions)
        )
        if inverse and isinstance(node, Node):
            sources, outputs = outputs, sources
        idle = tuple(dict.fromkeys(slot for slot in (*sources, *conditions) if slot not in needed))
        needed.update(idle)
        is_feature = isinstance(node, FeatureNode)
        shapes = tuple(value.shape for value in node.outputs) if is_feature else ()
        steps.append(Step(places[node], is_feature, sources, conditions, outputs, idle, shapes))
    return tuple(reversed(steps))
