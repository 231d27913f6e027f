"""Start values that layers take from data, while a graph runs for the first time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invgraph.core.invertible import Invertible
from invgraph.graph.run import Slots, gather
from invgraph.graph.schedule import Step


def start_layer(step: Step, layer: Any, slots: Slots, log_det: Tensor | None, *, inverse: bool, done: set[Any]) -> None:
    """Let a layer set what depends on data, from the values that reach it; at the first of its nodes, if several."""
    if isinstance(layer, Invertible) and layer not in done:
        done.add(layer)
        start = layer._initialize_inverse if inverse else layer._initialize
        start(gather(slots, step.inputs), gather(slots, step.conditions))
