"""Domain and range of a graph, and the ends of their elements, from those of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from invgraph.core.ranges import Ends, Knowns
from invgraph.graph.schedule import Schedule, Step

T = TypeVar("T")


def follow(schedule: Schedule, layers: Iterable[Any], intervals: Knowns) -> Knowns:
    """Return the intervals of what a direction returns, from those of its arguments."""
    listed = tuple(layers)
    return _walk(schedule, intervals, lambda step, xs: listed[step.layer]._follow(xs, inverse=schedule.inverse))


def follow_ends(schedule: Schedule, layers: Iterable[Any], ends: Ends) -> Ends:
    """Return the ends of the elements of what a direction returns, from those of its arguments."""
    listed = tuple(layers)
    return _walk(schedule, ends, lambda step, xs: listed[step.layer]._follow_ends(xs, inverse=schedule.inverse))


def _walk(
    schedule: Schedule, starts: tuple[T | None, ...], run: Callable[[Step, tuple[T | None, ...]], tuple[T | None, ...]]
) -> tuple[T | None, ...]:
    """Run the steps on what is known of the values; None for what is not."""
    slots: list[T | None] = [None] * schedule.slots
    for slot, value in zip(schedule.starts, starts, strict=True):
        slots[slot] = value
    for step in schedule.steps:
        if step.feature:
            continue
        for slot, value in zip(step.outputs, run(step, tuple(slots[slot] for slot in step.inputs)), strict=True):
            slots[slot] = value
    return tuple(slots[slot] for slot in schedule.ends)
