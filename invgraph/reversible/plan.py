"""One direction of a graph, and the order in which its backward pass rebuilds values and computes gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from invgraph.graph.check_finite import watch_finite
from invgraph.graph.graph import Graph
from invgraph.graph.run import Slots, fill, gather, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.shapes import Tensors


class Stage(NamedTuple):
    """Step of the backward pass, for one node.

    Attributes:
        kind: One of "undo" (rebuild the inputs of a layer from its outputs, and compute gradients), "rebuild" (only
            rebuild the inputs), "again" (compute gradients from inputs that are known already), "feature" (compute the
            outputs of a feature node) and "feature gradient".
        step: Step of the schedule that runs the node.
    """

    kind: str
    step: Step


def plan(schedule: Schedule) -> tuple[Stage, ...]:
    """Return the stages of the backward pass of a direction, in order.

    Gradients are computed in the reverse order of the schedule, so all readers of a value come before the node that
    produces it. A node conditioned on a value inside the graph needs that value early: the layer that transforms the
    value is then rebuilt ahead of its turn ("rebuild"), and its gradients are computed later ("again").
    """
    reader = {slot: step for step in schedule.steps if not step.feature for slot in step.inputs}
    feature = {slot: step for step in schedule.steps if step.feature for slot in step.outputs}
    known = {*range(len(schedule.conditions.shapes)), *schedule.ends}
    stages: list[Stage] = []
    early: set[Step] = set()
    for step in reversed(schedule.steps):
        if step.feature:
            _provide(step.outputs, known, reader, feature, early, stages)
            stages.append(Stage("feature gradient", step))
            continue
        _provide((*step.conditions, *(() if step in early else step.outputs)), known, reader, feature, early, stages)
        stages.append(Stage("again" if step in early else "undo", step))
        known.update(step.inputs)
    return tuple(stages)


def _provide(
    slots: tuple[int, ...],
    known: set[int],
    reader: dict[int, Step],
    feature: dict[int, Step],
    early: set[Step],
    stages: list[Stage],
) -> None:
    """Append stages until the values of these slots are known; iterative, because graphs may be deep."""
    waiting = list(slots)
    while waiting:
        slot = waiting[-1]
        if slot in known:
            waiting.pop()
            continue
        step = feature.get(slot) or reader[slot]
        needed = [s for s in (*step.conditions, *(() if step.feature else step.outputs)) if s not in known]
        if needed:
            waiting.extend(needed)
            continue
        stages.append(Stage("feature" if step.feature else "rebuild", step))
        if not step.feature:
            early.add(step)
        known.update(step.outputs if step.feature else step.inputs)


class Direction:
    """One direction of a graph, with the plan of its backward pass.

    Arguments:
        schedule: Schedule of the direction.
        opposite: Schedule of the opposite direction.
        anchors: Interval at which the inputs of nodes are stored; None to store none.
    """

    def __init__(self, schedule: Schedule, opposite: Schedule, anchors: int | None) -> None:
        self.schedule, self.opposite = schedule, opposite
        self.stages: tuple[Stage, ...] = plan(schedule)
        every = len(schedule.steps) + 1 if anchors is None else anchors
        self.anchors = {
            step for index, step in enumerate(schedule.steps) if index and index % every == 0 and not step.feature
        }

    def run(self, graph: Graph, values: Tensors, cs: Tensors) -> tuple[Tensors, Tensor, dict[Step, Tensors]]:
        """Run the graph, and return outputs, log-determinant, and the inputs of the anchors."""
        kept: dict[Step, Tensors] = {}

        def keep(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
            if step in self.anchors:
                kept[step] = gather(slots, step.inputs)

        layers, slots = tuple(graph.layers.values()), fill(self.schedule, values, cs)
        after = watch_finite(graph.label, self.schedule, slots) if graph.check_finite else None
        outputs, log_det = run(self.schedule, layers, slots, before=keep if self.anchors else None, after=after)
        return outputs, log_det, kept
