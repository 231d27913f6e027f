"""Checks of ``Graph(check_finite=True)``, which find the node that first makes a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Result
from invgraph.errors import NumericsError
from invgraph.graph.run import Observer, Slots, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.torch_internals import all_true, has_data, is_transformed


def run_checked(
    where: str,
    schedule: Schedule,
    layers: Sequence[nn.Module],
    slots: Slots,
    *,
    given: Mapping[int, Any] | None = None,
    before: Observer | None = None,
) -> Result:
    """Run the steps of a schedule as ``run`` does, and refuse NaN and infinity where they first appear.

    Compilers leave the whole run out of their code, or say why they can't: stopping at every check would cut the code
    into as many pieces. An exported program can't raise errors of this library, so it has no checks.
    """
    if torch.compiler.is_exporting():
        return run(schedule, layers, slots, given=given, before=before)
    if torch.compiler.is_compiling():
        from invgraph.graph.uncompiled import uncompiled

        return uncompiled(_run_watched, where, schedule, layers, slots, given, before)
    return _run_watched(where, schedule, layers, slots, given, before)


def _run_watched(
    where: str,
    schedule: Schedule,
    layers: Sequence[nn.Module],
    slots: Slots,
    given: Mapping[int, Any] | None,
    before: Observer | None,
) -> Result:
    return run(schedule, layers, slots, given=given, before=before, after=watch_finite(where, schedule, slots))


def watch_finite(where: str, schedule: Schedule, slots: Slots) -> Observer | None:
    """Refuse NaN and infinity among the values at the start of a run, and return an observer that does at each step.

    There is none in an exported program.
    """
    if torch.compiler.is_exporting():
        return None
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
    """True if a tensor holds neither NaN nor infinity, or holds no values that could be read."""
    if torch.compiler.is_compiling():
        from invgraph.graph.uncompiled import uncompiled

        return uncompiled(_is_finite, value)
    return _is_finite(value)


def _is_finite(value: Tensor) -> bool:
    # Inside vmap there are no values to read either, but torch can tell about all samples at once.
    return not (has_data(value) or is_transformed()) or all_true(value.isfinite())
