"""Start values that layers take from data, while a graph runs for the first time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError
from invgraph.graph.run import Slots, gather
from invgraph.graph.schedule import Step


def start_layer(step: Step, layer: Any, slots: Slots, log_det: Tensor | None, *, inverse: bool, done: set[Any]) -> None:
    """Let a layer set what depends on data, from the values that reach it; at the first of its nodes, if several."""
    if isinstance(layer, Invertible) and layer not in done:
        if any(value.is_meta for value in gather(slots, step.inputs)):
            advice = "start values are taken from data: build the graph on another device, or load it, and pass a batch"
            raise GraphError(f"initialize: {layer.label}", "data on the meta device, which have no values", advice)
        done.add(layer)
        start = layer._initialize_inverse if inverse else layer._initialize
        start(gather(slots, step.inputs), gather(slots, step.conditions))
