"""How a graph calls its layers: checked as they run, or traced, as regions of compiled code that equal layers share."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import Tensor

from invgraph.core.invertible import Result
from invgraph.shapes import Checked, Tensors, check_result, check_together, floating_tensor


class Regions(threading.local):
    """True while a graph is traced whose equal layers share compiled code; ``compiled.py`` sets it.

    A region keeps views of its arguments for the backward pass, and inductor (torch 2.13) reuses that memory unless it
    is told not to. Only ``Graph.compile`` tells it, so a graph that is compiled from outside is traced without regions.
    """

    wanted = False


regions = Regions()


def run_layer(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> Result:
    """Call a layer in one of its directions, with values that a graph has checked; what it returns is checked here."""
    if not torch.compiler.is_compiling():
        own = floating_tensor(layer)
        if own is not None and (own.dtype != xs[0].dtype or own.device != xs[0].device):  # cast or moved by itself
            check_together(layer.label, ((layer._outputs() if inverse else layer._inputs(), xs),), own)
        ys, log_det = layer.inverse(Checked(xs), cs) if inverse else layer(Checked(xs), cs)
        kind, shapes = ("input", layer.in_shapes) if inverse else ("output", layer.out_shapes)
        check_result(layer.label, kind, shapes, ys, log_det, xs[0])
        return ys, log_det
    if regions.wanted and layer.compiled_once and not torch.compiler.is_exporting():
        *ys, log_det = _region(layer, inverse, len(xs), *xs, *cs)
        return tuple(ys), log_det
    ys, log_det = _traced(layer, xs, cs, inverse)
    if regions.wanted and not torch.compiler.is_exporting():
        # No region takes two views of one tensor, such as the parts of a split.
        ys = tuple(y if y._base is None else y.clone() for y in ys)
    return tuple(ys), log_det


def _traced(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> Result:
    """As the layer's call, without its checks, which would be a good part of what there is to trace.

    The graph has checked what it was given, and checks what it returns.
    """
    if inverse:
        return layer._inverse(xs, cs)  # type: ignore[no-any-return]
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return layer(xs, cs) if hooked else layer._forward(xs, cs)  # type: ignore[no-any-return]


def _flat(layer: Any, inverse: bool, inputs: int, *tensors: Tensor) -> Tensors:
    """A layer's outputs and log-determinant in one tuple: what returns nested ones torch traces again each time.

    Inputs and conditions come in one row too: torch takes long to look into tuples.
    """
    ys, log_det = _traced(layer, tensors[:inputs], tensors[inputs:], inverse)
    return *ys, log_det


# How many kinds of layers a graph may hold: newer torch stops at eight unless told otherwise.
_known = inspect.signature(torch.compiler.nested_compile_region).parameters
_many: dict[str, Any] = {"max_reuse_entries": 1 << 16} if "max_reuse_entries" in _known else {}
_region = torch.compiler.nested_compile_region(_flat, **_many)
