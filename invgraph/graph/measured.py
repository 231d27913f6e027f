"""Measurements of a graph on a batch: what they refuse, and the mode in which the graph runs meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from invgraph.core.call import check_together
from invgraph.core.invertible import Invertible
from invgraph.core.modes import evaluating, without_inference
from invgraph.errors import GraphError, ShapeError
from invgraph.shapes import Structured, Tensors
from invgraph.torch_internals import floating_tensor


def measurable(where: str, call: str, graph: Invertible, x: Structured, c: Structured) -> tuple[Tensors, Tensors]:
    """Return data and conditions as tuples, checked as in a call; refuse what nothing can be measured on.

    Arguments:
        where: The function that measures, for errors.
        call: The call that was meant, with ``{x}`` and ``{c}``.
        graph: The graph.
        x: Data, as in a call of the graph.
        c: Conditions, as in a call of the graph.

    Raises:
        ShapeError: If the batch is empty, or a tensor does not fit.
        GraphError: On the meta device, under ``torch.inference_mode``, and for a graph that was built in it.
    """
    if torch.is_inference_mode_enabled():
        advice = "gradients are recorded to measure the nodes: call it outside (torch.no_grad is fine)"
        raise GraphError(where, "a call under torch.inference_mode", advice)
    source, given = graph._inputs(), graph._conditions()
    given.require_given(where, c, call, source)
    xs, cs = source.unpack(where, x), given.unpack(where, c)
    batch, _ = check_together(where, ((source, xs), (given, cs)), floating_tensor(graph))
    if batch == 0:
        raise ShapeError(where, "a batch of 0", "nodes are measured on data: pass at least one sample")
    tensors = tuple(itertools.chain(graph.parameters(), graph.buffers()))
    if any(tensor.is_meta for tensor in (*xs, *cs, *tensors)):
        advice = "tensors there have no values to measure: build the graph on another device, or load it, and pass data"
        raise GraphError(where, "tensors on the meta device", advice)
    if any(tensor.is_inference() for tensor in tensors):
        advice = "torch records no gradients for them: build, convert and load the graph outside of that mode"
        raise GraphError(where, "a graph with tensors that were made under torch.inference_mode", advice)
    return tuple(map(without_inference, xs)), tuple(map(without_inference, cs))


@contextmanager
def measuring(graph: nn.Module) -> Iterator[None]:
    """Within the context, a graph is in evaluation mode, and all that is compiled runs as plain Python."""
    with evaluating(graph), _uncompiled():
        yield


_lock = threading.Lock()
_measurements = 0
_stance = ExitStack()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Within the context, run compiled code eagerly: hooks of a measurement are not called inside it.

    The stance belongs to the process: the first of several threads sets it, and the last one restores it.
    """
    global _measurements
    with _lock:
        if _measurements == 0:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
        _measurements += 1
    try:
        yield
    finally:
        with _lock:
            _measurements -= 1
            if _measurements == 0:
                _stance.close()
