"""Domain and range of a graph, from those of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from invgraph.core.ranges import Knowns
from invgraph.graph.schedule import Schedule
from invgraph.numerics.interval import Known


def follow(schedule: Schedule, layers: Iterable[Any], intervals: Knowns) -> Knowns:
    """Return the intervals of what a direction returns, from those of its arguments."""
    slots: list[Known] = [None] * schedule.slots
    for slot, interval in zip(schedule.starts, intervals, strict=True):
        slots[slot] = interval
    listed = tuple(layers)
    for step in schedule.steps:
        if step.feature:
            continue
        found = listed[step.layer]._follow(tuple(slots[slot] for slot in step.inputs), inverse=schedule.inverse)
        for slot, interval in zip(step.outputs, found, strict=True):
            slots[slot] = interval
    return tuple(slots[slot] for slot in schedule.ends)
