"""One direction of a graph, and the order in which its backward pass rebuilds values and computes gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from torch import Tensor

from invgraph.graph.check_finite import run_checked
from invgraph.graph.graph import Graph
from invgraph.graph.run import Slots, fill, gather, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.shapes import Tensors

Kind = Literal["rebuild and differentiate", "rebuild", "differentiate", "feature", "feature gradient"]


class Stage(NamedTuple):
    """Step of the backward pass, for one node.

    Attributes:
        kind: What to do: rebuild the inputs of a layer from its outputs, and find their gradients; only rebuild them;
            find the gradients of inputs that are known already; compute the outputs of a feature node; or find the
            gradients of one.
        step: Step of the schedule that runs the node.
    """

    kind: Kind
    step: Step


def plan(schedule: Schedule) -> tuple[Stage, ...]:
    """Return the stages of the backward pass of a direction, in order.

    Gradients are found in the reverse order of the schedule, so every node that reads a value comes before the one that
    makes it. A node conditioned on a value inside the graph needs that value early: the layer that transforms the
    value is then rebuilt ahead of its turn, and its gradients are found later.
    """
    consumer = {slot: step for step in schedule.steps if not step.feature for slot in step.inputs}
    feature = {slot: step for step in schedule.steps if step.feature for slot in step.outputs}
    known = {*range(len(schedule.conditions.shapes)), *schedule.ends}
    stages: list[Stage] = []
    early: set[Step] = set()

    def provide(slots: Iterable[int]) -> None:
        """Append stages until the values of these slots are known; iterative, because graphs may be deep."""
        waiting = list(slots)
        while waiting:
            slot = waiting[-1]
            if slot in known:
                waiting.pop()
                continue
            step = feature.get(slot) or consumer[slot]
            needed = [s for s in (*step.conditions, *(() if step.feature else step.outputs)) if s not in known]
            if needed:
                waiting.extend(needed)
                continue
            stages.append(Stage("feature" if step.feature else "rebuild", step))
            if not step.feature:
                early.add(step)
            known.update(step.outputs if step.feature else step.inputs)

    for step in reversed(schedule.steps):
        if step.feature:
            provide(step.outputs)
            stages.append(Stage("feature gradient", step))
        else:
            provide((*step.conditions, *(() if step in early else step.outputs)))
            stages.append(Stage("differentiate" if step in early else "rebuild and differentiate", step))
            known.update(step.inputs)
    return tuple(stages)


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
        before = keep if self.anchors else None
        if graph.check_finite:
            return *run_checked(graph.label, self.schedule, layers, slots, before=before), kept
        return *run(self.schedule, layers, slots, before=before), kept
