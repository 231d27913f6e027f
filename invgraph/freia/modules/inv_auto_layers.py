"""FrEIA's learned slopes and scales, and its invertible autoencoder layers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, require_image, require_vector
from invgraph.numerics.channels import mix
from invgraph.numerics.reductions import per_sample

__all__ = [
    "InvAutoAct",
    "InvAutoActFixed",
    "InvAutoActTwoSided",
    "InvAutoConv2D",
    "InvAutoFC",
    "LearnedElementwiseScaling",
]


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
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
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
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
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
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        scale = -self.s if rev else self.s
        return (x[0] * torch.exp(scale),), scale.sum().expand(x[0].shape[0])


def _warn_of_log_det() -> None:
    text = "Invertible autoencoder layers have no tractable log-det-Jacobian: 0 is right for an orthogonal matrix only"
    warnings.warn(text, stacklevel=3)


class InvAutoFC(OneInput):
    """A linear layer whose inverse is taken to be its transpose, which it is only where the matrix is orthogonal.

    Arguments:
        dims_in: Shape of the vector, in a list.
        dims_c: Not used.
        dims_out: Size of the output. Default: that of the input.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, dims_out: int | None = None) -> None:
        super().__init__(dims_in, dims_c)
        require_vector(self, self.dims_in)
        self.dims_out = self._channels if dims_out is None else dims_out
        self.weights = nn.Parameter(torch.randn(self.dims_out, self._channels) * math.sqrt(1 / self.dims_out))
        self.bias = nn.Parameter(torch.randn(1, self.dims_out))

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        if jac:
            _warn_of_log_det()
        y = mix(x[0] - self.bias, self.weights.t()) if rev else mix(x[0], self.weights) + self.bias
        return (y,), y.new_zeros(y.shape[0])

    def output_dims(self, input_dims: Any) -> Any:
        require_vector(self, input_dims)
        return [(self.dims_out,)]


class InvAutoConv2D(OneInput):
    """A convolution whose inverse is taken to be its transpose, which it is only where the matrix is orthogonal.

    Arguments:
        dims_in: Shape of the image, in a list.
        dims_c: Not used.
        dims_out: Shape of the output. Default: that of the input.
        kernel_size: Size of the kernel.
        padding: Padding of the convolution.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = None, dims_out: Any = None, kernel_size: int = 3, padding: int = 1
    ) -> None:
        super().__init__(dims_in, dims_c)
        require_image(self, self.dims_in)
        self.dims_out = self.dims_in[0] if dims_out is None else tuple(dims_out)
        self.kernel_size, self.padding = kernel_size, padding
        self.conv2d = nn.Conv2d(self._channels, self.dims_out[0], kernel_size, padding=padding, bias=False)
        self.bias = nn.Parameter(torch.randn(1, self.dims_out[0], 1, 1))

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        if jac:
            _warn_of_log_det()
        if rev:
            y = functional.conv_transpose2d(x[0] - self.bias, self.conv2d.weight, padding=self.padding)
        else:
            y = self.conv2d(x[0]) + self.bias
        return (y,), y.new_zeros(y.shape[0])

    def output_dims(self, input_dims: Any) -> Any:
        require_image(self, input_dims)
        return [self.dims_out]
