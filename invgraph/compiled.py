"""The compiled runner: how a graph is compiled, and its layers called inside, as regions that equal layers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from invgraph.shapes import Checked, Tensors, check_result, check_together, floating_tensor


def compiled(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """``torch.compile(function, **settings)``, with numbers such as a clamp taken as the constants they are."""
    run = torch.compile(function, **_safe(settings))

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._dynamo.config.patch(specialize_float=True):
            return run(*args, **kwargs)

    return call


# Regions keep views of their arguments for the backward pass. Inductor (torch 2.13) holds that memory to be free
# once the last region has read it, and computes on in it: gradients would be wrong, without a word.
_UNSHARED = {"allow_buffer_reuse": False, "inplace_buffers": False}


def _safe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and that no memory is used twice; a mode as the options it stands for, since torch takes one."""
    mode, options = settings.get("mode"), settings.get("options")
    modes = torch._inductor.list_mode_options()
    if settings.get("backend", "inductor") != "inductor" or (mode is not None and (options or mode not in modes)):
        return dict(settings)
    chosen = {**(modes[mode] if mode else {}), **(options or {}), **_UNSHARED}
    return {**settings, "mode": None, "options": chosen}


def run_layer(layer: Any, xs: Tensors, cs: Tensors, log_det: Tensor, inverse: bool) -> tuple[Tensors, Tensor]:
    """Call a layer in one of its directions, with values that a graph has checked; what it returns is checked here.

    Returns:
        What the layer makes, and the log-determinant with the layer's share.
    """
    if not torch.compiler.is_compiling():
        own = floating_tensor(layer)
        if own is not None and (own.dtype != xs[0].dtype or own.device != xs[0].device):  # cast or moved by itself
            check_together(layer.label, ((layer._outputs() if inverse else layer._inputs(), xs),), own)
        ys, share = layer.inverse(Checked(xs), cs) if inverse else layer(Checked(xs), cs)
        kind, shapes = ("input", layer.in_shapes) if inverse else ("output", layer.out_shapes)
        check_result(layer.label, kind, shapes, ys, share, xs[0])
        return ys, log_det + share
    if layer.compiled_once and not torch.compiler.is_exporting():
        *ys, share = _region(layer, xs, cs, inverse)
        return tuple(ys), log_det + share
    ys, share = _traced(layer, xs, cs, inverse)
    if not torch.compiler.is_exporting():
        # No region takes two views of one tensor, such as the parts of a split.
        ys = tuple(y if y._base is None else y.clone() for y in ys)
    return tuple(ys), log_det + share


def _traced(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> tuple[Tensors, Tensor]:
    """As the layer's call, without its checks, which would be a good part of what there is to trace.

    The graph has checked what it was given, and checks what it returns.
    """
    if inverse:
        return layer._inverse(xs, cs)  # type: ignore[no-any-return]
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return layer(xs, cs) if hooked else layer._forward(xs, cs)  # type: ignore[no-any-return]


def _flat(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> Tensors:
    """A layer's outputs and log-determinant in one tuple: what returns nested ones torch traces again each time."""
    ys, log_det = _traced(layer, xs, cs, inverse)
    return *ys, log_det


# How many kinds of layers a graph may hold: newer torch stops at eight unless told otherwise.
_known = inspect.signature(torch.compiler.nested_compile_region).parameters
_many: dict[str, Any] = {"max_reuse_entries": 1 << 16} if "max_reuse_entries" in _known else {}
_region = torch.compiler.nested_compile_region(_flat, **_many)
