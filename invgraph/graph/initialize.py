"""Start values that layers take from data, while a graph runs for the first time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from invgraph.core.invertible import Invertible
from invgraph.core.wrappers import Inverse
from invgraph.graph.run import Slots, gather
from invgraph.graph.schedule import Step


class _Started(threading.local):
    """The layers that have their start values in the pass that runs, which graphs inside the graph are part of."""

    layers: set[Any] | None = None


_started = _Started()


@contextmanager
def starting() -> Iterator[None]:
    """Within the outermost of these contexts, each layer is started once, whatever graphs and nodes it stands in."""
    outer = _started.layers
    _started.layers = set() if outer is None else outer
    try:
        yield
    finally:
        _started.layers = outer


def start_layer(step: Step, layer: Any, slots: Slots, log_det: Tensor | None, *, inverse: bool) -> None:
    """Let a layer set what depends on data, from the values that reach it; at the first of its nodes, if several."""
    while isinstance(layer, Inverse):
        layer, inverse = layer.module, not inverse
    done = _started.layers
    if isinstance(layer, Invertible) and done is not None and layer not in done:
        done.add(layer)
        start = layer._initialize_inverse if inverse else layer._initialize
        start(gather(slots, step.inputs), gather(slots, step.conditions))
