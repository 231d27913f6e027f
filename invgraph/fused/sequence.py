"""Sequences of linear layers, convolutions and ReLU, run without the calls of their modules, and in place.

A call of a small module takes longer than its arithmetic on a few hundred numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.fused import channels_last, joint_linear
from invgraph.fused.switch import fused
from invgraph.shapes import Tensors
from invgraph.torch_internals import PLAIN, has_own_convolution, is_eager, is_plain, is_untouched, own_weights

_sequential, _linear, _relu = nn.Sequential.forward, nn.Linear.forward, nn.ReLU.forward  # to notice patches
_convolutions: dict[Any, tuple[Callable[..., Any], str]] = {  # by name: a profiler may replace the function
    nn.Conv1d: (nn.Conv1d.forward, "conv1d"),
    nn.Conv2d: (nn.Conv2d.forward, "conv2d"),
    nn.Conv3d: (nn.Conv3d.forward, "conv3d"),
}


def run(network: nn.Module, x: Tensor, cs: Tensors = ()) -> Tensor:
    """Return what a network makes of data joined with conditions along the channels, laid out as usual.

    Modules are not called where nobody could tell the difference.

    Arguments:
        network: The network.
        x: The data, ``(B, C, ...)``.
        cs: The conditions, of the data's spatial size.
    """
    if type(network) is not nn.Sequential or type(x) not in PLAIN:
        return network(torch.cat((x, *cs), dim=1) if cs else x)  # type: ignore[no-any-return]
    is_silent = fused.enabled and is_eager() and is_untouched(network, _sequential)
    if cs:
        own = _first_linear(network, x) if is_silent and all(type(c) in PLAIN for c in cs) else None
        if own and joint_linear.saves_products(x, cs, own[0]):
            h = joint_linear.joint_linear(x, *own, cs)
            return _evaluate(islice(network, 1, None), h, is_fresh=True)
        x = torch.cat((x, *cs), dim=1)
    if x.ndim != 4 or not channels_last.prefers_channels_last(network, x):
        return _evaluate(network, x) if is_silent else network(x)
    h = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = _evaluate(network, h) if is_silent else network(h)
    return y.contiguous()


def _first_linear(network: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return weight and bias of a linear layer that comes first, for vectors in their own precision."""
    first = next(iter(network), None)
    if type(first) is not nn.Linear or x.ndim != 2 or not is_plain(x):
        return None
    own = own_weights(first, _linear)
    return (own[0], own[1]) if own and own[1] is not None else None


def _evaluate(layers: Iterable[nn.Module], h: Tensor, *, is_fresh: bool = False) -> Tensor:
    """Return what layers make of a value; a ReLU overwrites what a product before it has just returned.

    Arguments:
        layers: The layers.
        h: The value.
        is_fresh: True if such a product has returned the value.
    """
    for layer in layers:
        kind = type(layer)
        if kind is nn.ReLU and is_untouched(layer, _relu):
            h = torch.relu_(h) if is_fresh or layer.inplace else torch.relu(h)
            is_fresh = False  # a ReLU keeps its result for its gradient
            continue
        is_fresh = False
        if kind is nn.Linear and h.ndim == 2:
            own = own_weights(layer, _linear)
            if own:
                h, is_fresh = functional.linear(h, *own), True
                continue
        elif kind in _convolutions:
            forward, name = _convolutions[kind]
            own = own_weights(layer, forward)
            if own and layer.padding_mode == "zeros" and has_own_convolution(layer):
                h, is_fresh = getattr(functional, name)(h, *own, *_settings(layer)), True
                continue
        h = layer(h)
    return h


def _settings(layer: Any) -> tuple[Any, ...]:
    return layer.stride, layer.padding, layer.dilation, layer.groups
