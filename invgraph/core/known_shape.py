"""Output shapes of sequences of ordinary layers, from their weights and settings.

They save a trial, which takes a millisecond per network; the first trial of a process also imports torch's compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from invgraph.fused.channels_last import ELEMENTWISE
from invgraph.shapes import Shape
from invgraph.torch_internals import has_own_convolution, is_untouched, own_weights

_WITH_WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_forwards: dict[type[nn.Module], Any] = {  # to notice patches
    kind: kind.forward for kind in (nn.Sequential, nn.Dropout, *_WITH_WEIGHTS, *ELEMENTWISE)
}


def shapes_of_base(kind: type[nn.Module]) -> type[nn.Module]:
    """Mark a subclass of one of torch's layers that returns the shapes of that layer."""
    _forwards[kind] = kind.forward
    return kind


def known_shape(network: nn.Module, shape: Shape) -> Shape | None:
    """Return the shape that a network makes of one value; None if only a trial can tell, or tell what is wrong.

    Arguments:
        network: The network.
        shape: Shape of the value, without the batch.
    """
    return shape_after((network,), shape)


def shape_after(layers: Iterable[nn.Module], shape: Shape) -> Shape | None:
    """Return the shape that layers make of one value, one after the other, as :func:`known_shape` does."""
    modules = tuple(layers)
    dtypes = {p.dtype for module in modules for p in module.parameters()}
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        return None
    return _follow(modules, shape)


def _follow(layers: Iterable[nn.Module], shape: Shape) -> Shape | None:
    found: Shape | None = shape
    for layer in layers:
        found = None if found is None else _after(layer, found)
    return found


def _after(layer: Any, shape: Shape) -> Shape | None:
    kind = type(layer)
    if kind not in _forwards or not is_untouched(layer, _forwards[kind]):
        return None
    if kind is nn.Sequential:
        return _follow(layer, shape)
    if not isinstance(layer, _WITH_WEIGHTS):
        return None if getattr(layer, "inplace", False) else shape
    own = own_weights(layer, _forwards[kind])
    if own is None:
        return None
    weight, bias = own
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    if isinstance(layer, nn.Linear):
        return (*shape[:-1], weight.shape[0]) if weight.shape[1:] == shape[-1:] else None
    if layer.padding_mode != "zeros" or not has_own_convolution(layer):
        return None
    kernel, channels = weight.shape[2:], weight.shape[1] * layer.groups
    if len(shape) != 1 + len(kernel) or channels != shape[0] or weight.shape[0] % layer.groups:
        return None
    if layer.padding == "same":
        return (weight.shape[0], *shape[1:])
    padding = (0,) * len(kernel) if layer.padding == "valid" else layer.padding
    settings: Iterable[Any] = zip(shape[1:], kernel, padding, layer.dilation, layer.stride, strict=True)
    sizes = [(size + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for size, k, pad, dilation, stride in settings]
    return (weight.shape[0], *sizes) if min(sizes) > 0 else None
