"""Checks of ``Graph(check_finite=True)``, which find the node that first makes a NaN or an infinity."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invgraph.errors import NumericsError
from invgraph.graph.run import Observer, Slots
from invgraph.graph.schedule import Schedule, Step


def watch_finite(where: str, schedule: Schedule, slots: Slots) -> Observer:
    """Refuse NaN and infinity among the values at the start of a run, and return an observer that does at each step."""
    require_finite_start(where, schedule, slots)
    return finite_observer(schedule)


def require_finite_start(where: str, schedule: Schedule, slots: Slots) -> None:
    """Refuse values and conditions that are not finite when they come in, so that no node is blamed for them."""
    labels = {slot: schedule.conditions.label(slot) for slot in range(len(schedule.conditions.shapes))}
    labels.update((slot, schedule.source.label(index)) for index, slot in enumerate(schedule.starts))
    for slot, label in labels.items():
        value = slots[slot]
        if value is not None and not is_finite(value):
            readers = (step.layer for step in schedule.steps if slot in (*step.inputs, *step.conditions))
            first = next((f": node {schedule.names[layer]!r} reads it first" for layer in readers), "")
            raise NumericsError(where, f"{label}: NaN or infinite", f"the call received it like this{first}")


def finite_observer(schedule: Schedule) -> Observer:
    """Return an observer that refuses a step whose outputs or log-determinant are not finite."""

    def observe(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
        for value in (*(slots[slot] for slot in step.outputs), log_det):
            if value is not None and not is_finite(value):
                where = f"node {schedule.names[step.layer]!r} ({type(layer).__name__})"
                given = "finite inputs; its output contains NaN or infinity"
                raise NumericsError(where, given, "this is the first node where they appear")

    return observe


def is_finite(value: Tensor) -> bool:
    """True if a tensor holds neither NaN nor infinity."""
    return bool(value.isfinite().all())
