"""FrEIA's learned slopes and scales."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.freia.modules.base import OneInput
from invgraph.numerics.reductions import per_sample

__all__ = ["InvAutoAct", "InvAutoActFixed", "InvAutoActTwoSided", "LearnedElementwiseScaling"]


def _per_channel(shape: Sequence[int], value: float, learnable: bool) -> nn.Parameter:
    return nn.Parameter(torch.full((1, shape[0], *(1 for _ in shape[1:])), value), requires_grad=learnable)


def _scaled(x: Tensor, log_slope: Tensor, rev: bool) -> tuple[tuple[Tensor], Tensor]:
    log_slope = -log_slope if rev else log_slope
    return (x * torch.exp(log_slope),), per_sample(log_slope)


class InvAutoActTwoSided(OneInput):
    """A leaky rectifier with a learned slope per channel on each side.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        init_pos: Start of the slopes for positive inputs.
        init_neg: Start of the slopes for negative inputs.
        learnable: Learn the slopes.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = None, init_pos: float = 2.0, init_neg: float = 0.5, learnable: bool = True
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.alpha_pos = _per_channel(self.dims_in[0], math.log(init_pos), learnable)
        self.alpha_neg = _per_channel(self.dims_in[0], math.log(init_neg), learnable)

    def forward(
        self, x: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        # The slopes are positive, so the sign of the output is that of the input.
        log_slope = self.alpha_pos + 0.5 * (self.alpha_neg - self.alpha_pos) * (1 - x[0].sign())
        return _scaled(x[0], log_slope, rev)


class InvAutoAct(OneInput):
    """A leaky rectifier with a learned slope per channel, whose slope on the negative side is the inverse.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        slope_init: Start of the slopes for positive inputs.
        learnable: Learn the slopes.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, slope_init: float = 2.0, learnable: bool = True) -> None:
        super().__init__(dims_in, dims_c)
        self.alpha = _per_channel(self.dims_in[0], math.log(slope_init), learnable)

    def forward(
        self, x: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        return _scaled(x[0], self.alpha * x[0].sign(), rev)


class InvAutoActFixed(InvAutoAct):
    """Deprecated name of :class:`InvAutoAct` with ``learnable=False``; like FrEIA's, it does learn by default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        warnings.warn("Deprecated: please use InvAutoAct with the learnable=False argument.", stacklevel=2)


class LearnedElementwiseScaling(OneInput):
    """Scale each element by a learned positive factor.

    FrEIA starts at 1 whatever ``init_scale`` is, and returns the log-determinant of the inverse with the wrong sign.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        init_scale: Start of the factors.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, init_scale: float = 1.0) -> None:
        super().__init__(dims_in, dims_c)
        self.s = nn.Parameter(torch.full((1, *self.dims_in[0]), math.log(init_scale)))

    def forward(
        self, x: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        scale = -self.s if rev else self.s
        return (x[0] * torch.exp(scale),), scale.sum().expand(x[0].shape[0])
