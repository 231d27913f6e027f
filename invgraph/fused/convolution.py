"""Convolutions to few channels as one matrix product, where no gradient is recorded."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from invgraph.fused.autograd import needs_grad
from invgraph.fused.switch import fused
from invgraph.torch_internals import is_eager

_FEW = 8
"""Number of output channels up to which a matrix product is faster: a CPU's convolution wastes most vector lanes."""


def prefers_shifted_sum(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """True if :func:`shifted_sum` is quicker, and may stand in: on a CPU, where nothing is recorded or traced.

    Not in half precision, to which each of its terms would be rounded.
    """
    if weight.shape[0] > _FEW or weight.shape[2] == 1 or not x.is_contiguous() or x.device.type != "cpu":
        return False
    is_precise = x.dtype.itemsize >= 4 and not torch.is_autocast_enabled("cpu")
    return is_precise and is_eager() and fused.enabled and not needs_grad(x, weight, *(() if bias is None else (bias,)))


def shifted_sum(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution as one matrix product, whose maps, one for each place of the kernel, are shifted and added.

    Arguments:
        x: ``(B, C, ...)``.
        weight: ``(C_out, C, k, ...)``, every k odd.
        bias: ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, ...)``, of the spatial size of ``x``.
    """
    sizes, kernel = x.shape[2:], weight.shape[2:]
    places = tuple(product(*(range(k) for k in kernel)))
    matrix = weight.flatten(2).permute(2, 0, 1).flatten(0, 1)
    maps: Tensor = torch.unflatten(torch.unflatten(matrix @ x.flatten(2), 1, (len(places), -1)), 3, sizes)
    padded = maps.new_zeros((*maps.shape[:1], maps.shape[2], *(n + k - 1 for n, k in zip(sizes, kernel, strict=True))))
    every = slice(None)
    for index, place in enumerate(places):
        shifts = ((k - 1 - at, n) for at, k, n in zip(place, kernel, sizes, strict=True))
        padded[(every, every, *(slice(shift, shift + n) for shift, n in shifts))].add_(maps[:, index])
    inner = (slice(k // 2, k // 2 + n) for k, n in zip(kernel, sizes, strict=True))
    y = padded[(every, every, *inner)]
    return y.contiguous() if bias is None else y + bias.view(-1, *(1,) * len(sizes))
