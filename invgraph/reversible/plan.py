"""The order in which the reversible runner's backward pass rebuilds values and takes gradients."""

from __future__ import annotations

from typing import NamedTuple

from invgraph.graph.schedule import Schedule, Step


class Stage(NamedTuple):
    """One thing that the backward pass does: see :func:`plan`.

    Attributes:
        kind: "undo", "rebuild", "again", "feature" or "feature gradient".
        step: The node.
    """

    kind: str
    step: Step


def plan(schedule: Schedule) -> tuple[Stage, ...]:
    """Return what the backward pass of a direction does, in order.

    Gradients go against the call's schedule: every reader of a value before its maker. A node conditioned on a value
    inside the graph needs that value before the node that made it is undone: then the value's reader is rebuilt early
    ("rebuild"), and its own gradient follows later from its known inputs ("again").
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
    """Stages that make these slots known, without recursion: graphs may be deep."""
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
