"""The elementwise arithmetic of FrEIA's couplings, whose constants differ from those of native transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor

from invgraph.errors import GraphError, ShapeError
from invgraph.numerics.reductions import per_sample

Clamp: TypeAlias = Callable[[Tensor], Tensor]
"""Function from all numbers to (-1, 1)."""


def atan_clamp(u: Tensor) -> Tensor:
    """Return ``0.636 atan(u)``; FrEIA rounds 2 / pi to 0.636."""
    return torch.atan(u).mul(0.636)


def sigmoid_clamp(u: Tensor) -> Tensor:
    """Return ``2 sigmoid(u) - 1``."""
    return (torch.sigmoid(u) - 0.5) * 2


CLAMPS: dict[str, Clamp] = {"ATAN": atan_clamp, "TANH": torch.tanh, "SIGMOID": sigmoid_clamp}


def clamped_log_slope(clamp: float, activation: Clamp, u: Tensor, rev: bool) -> Tensor:
    """Return ``clamp * activation(u)``, or for the inverse its negative, as a tensor that may be written into."""
    bound = -clamp if rev else clamp
    # The arc tangent's own backward pass reads its argument, so its result may be written into.
    return torch.atan(u).mul_(0.636 * bound) if activation is atan_clamp else bound * activation(u)


def as_clamp(where: str, activation: object) -> Clamp:
    """Return the function that ``clamp_activation`` names, or the function that it is."""
    clamp: object = CLAMPS.get(activation) if isinstance(activation, str) else activation
    if not callable(clamp):
        raise GraphError(
            where, f"clamp_activation={activation!r}", f"expected one of {', '.join(CLAMPS)}, or a function"
        )
    return cast("Clamp", clamp)


def split_length(where: str, channels: int, split_len: int | float) -> int:
    """Return the channels of the first part; a fraction is rounded, halves to even."""
    if isinstance(split_len, float):
        if not 0 <= split_len <= 1:
            raise GraphError(where, f"split_len={split_len}", "a fraction split_len must be in [0, 1]")
        return round(channels * split_len)
    if not 0 <= split_len <= channels:
        raise GraphError(where, f"split_len={split_len}", f"split_len must be in 0..{channels}")
    return split_len


def halves(params: Tensor, channels: int, where: str) -> tuple[Tensor, Tensor]:
    """Return scale and shift from what a subnet returned.

    Raises:
        ShapeError: If the subnet returned another number of channels; FrEIA would silently broadcast one.
    """
    require_channels(params, 2 * channels, where)
    scale, shift = torch.split_with_sizes(params, (channels, channels), dim=1)
    return scale, shift


def require_channels(params: Tensor, channels: int, where: str) -> None:
    """Refuse what a subnet returned if it has another number of channels."""
    if params.shape[1] != channels:
        given = f"a subnet returned {params.shape[1]} channels"
        raise ShapeError(where, given, f"expected {channels}: the second argument of subnet_constructor")


def affine(x: Tensor, log_slope: Tensor, shift: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
    """Return ``exp(log_slope) x + shift`` or its inverse, and the log-determinant of shape ``(B,)``.

    Arguments:
        x: Data.
        log_slope: Log of the derivative of the direction taken, from :func:`clamped_log_slope`.
        shift: What is added, or subtracted first in the inverse.
        rev: True for the inverse.
    """
    y = scale_and_shift(x, log_slope, shift, rev)
    return y, per_sample(log_slope if log_slope.dtype == x.dtype else log_slope.to(x.dtype))


def scale_and_shift(x: Tensor, log_slope: Tensor, shift: Tensor, rev: bool) -> Tensor:
    """Return the values of :func:`affine` alone, in the data's dtype."""
    if log_slope.dtype != x.dtype:  # under autocast
        log_slope, shift = log_slope.to(x.dtype), shift.to(x.dtype)
    return (x - shift) * torch.exp(log_slope) if rev else torch.addcmul(shift, torch.exp(log_slope), x)
