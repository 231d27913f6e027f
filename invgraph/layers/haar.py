"""Downsampling by Haar wavelets: averages and derivatives as channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invgraph.arguments import require_flag, require_positive
from invgraph.core.invertible import Invertible, Result
from invgraph.shapes import Shape, Tensors, require_axes, require_divisible


class Haar(Invertible):
    r"""Halve every spatial size by a Haar wavelet transform (paper, 3.4 and Fig. 3).

    .. math:: y = \tfrac{1}{2}
        \begin{pmatrix} 1 & 1 & 1 & 1 \\ r & -r & r & -r \\ r & r & -r & -r \\ r & -r & -r & r \end{pmatrix}
        \begin{pmatrix} a \\ b \\ c \\ d \end{pmatrix}, \qquad r = \text{rebalance}

    For an image, each 2 x 2 patch (a, b; c, d) of a channel becomes four channels: the average a + b + c + d, and the
    horizontal, vertical and diagonal derivatives a - b + c - d, a + b - c - d, a - b - c + d, each halved to make the
    transform orthogonal. Signals and volumes likewise, with 2 and 8 channels and a factor :math:`2^{-n/2}` for n
    axes. ``ig.Inverse(ig.Haar(...))`` upsamples.

    Shape:
        ``x: (B, C, H, W) -> y: (B, 4C, H/2, W/2)``; ``(B, C, L) -> (B, 2C, L/2)``;
        ``(B, C, D, H, W) -> (B, 8C, D/2, H/2, W/2)``; with ``axes=(2,)``, ``(B, C, H, W) -> (B, 2C, H, W/2)``

    Log-det:
        log(rebalance) times the number of elements in the derivative channels, nats per sample.

    Arguments:
        in_shapes: Shape of the input, with even spatial sizes.
        rebalance: Factor on the derivative channels (the paper's colorization models use 0.5). Default: 1.
        order_by_wavelet: True to order the output by wavelet, then by channel, which puts all averages first; False to
            order it by channel, then by wavelet. Default: False.
        axes: Spatial axes that are halved, not counting the batch: 1 is the first after the channels. Default: all.

    Raises:
        GraphError: If a size to be halved is odd, there is no such axis, the input is a vector, or ``rebalance`` is not
            positive.
        ArgumentError: If an argument has the wrong type.

    References:
        A. Haar, "Zur Theorie der orthogonalen Funktionensysteme", 1910, https://doi.org/10.1007/BF01456326;
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Haar((1, 2, 2))((torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]),))
        >>> y.flatten()
        tensor([ 5., -1., -2.,  0.])
    """

    range_kind = "any"
    fixed_size_reason = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        rebalance: float = 1.0,
        order_by_wavelet: bool = False,
        axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        order_by_wavelet = require_flag("Haar", "order_by_wavelet", order_by_wavelet)
        shape = self.in_shapes[0]
        self.dims = require_axes("Haar", axes, shape)
        require_divisible(shape, 2, "Haar", self.dims)
        rebalance = require_positive("Haar", "rebalance", rebalance)
        self.axes = len(self.dims)
        self.norm = 2 ** (-self.axes / 2)  # makes the transform orthogonal: sums have 2^n terms for n axes
        self.rebalance = float(rebalance)
        self.order_by_wavelet = order_by_wavelet

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        require_divisible(self.in_shapes[0], 2, self.label, self.dims)

    @property
    def log_det(self) -> float:
        """Log-determinant of every sample."""
        shape = self.in_shapes[0]
        details = math.prod(shape) - math.prod(shape) // 2**self.axes
        return float(details * math.log(self.rebalance))

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        channels, *sizes = self.in_shapes[0]
        halved = (size // 2 if axis in self.dims else size for axis, size in enumerate(sizes, 1))
        return ((channels * 2**self.axes, *halved),)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        y = xs[0].unsqueeze(1) * self.norm  # (B, wavelets, C, ...)
        for axis in (dim + 2 for dim in reversed(self.dims)):
            even, odd = torch.unflatten(y, axis, (-1, 2)).unbind(axis + 1)
            y = torch.cat((even + odd, even - odd), dim=1)
        y = _scale_derivatives(y, self.rebalance)
        y = y if self.order_by_wavelet else y.transpose(1, 2)
        return (y.flatten(1, 2),), y.new_full((y.shape[0],), self.log_det)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        channels = self.in_shapes[0][0]
        if self.order_by_wavelet:
            x = torch.unflatten(ys[0], 1, (2**self.axes, channels))
        else:
            x = torch.unflatten(ys[0], 1, (channels, 2**self.axes)).transpose(1, 2)
        x = _scale_derivatives(x, 1 / self.rebalance)
        for axis in (dim + 2 for dim in self.dims):
            low, high = x.chunk(2, dim=1)
            x = torch.stack((low + high, low - high), dim=axis + 1).flatten(axis, axis + 1)
        return (x.squeeze(1) * self.norm,), x.new_full((x.shape[0],), -self.log_det)

    def extra_repr(self) -> str:
        axes = "" if self.axes == len(self.in_shapes[0]) - 1 else f", axes={self.dims}"
        return f"{super().extra_repr()}, rebalance={self.rebalance}, order_by_wavelet={self.order_by_wavelet}{axes}"


def _scale_derivatives(y: Tensor, factor: float) -> Tensor:
    """Multiply every wavelet except the first, the average, by the factor."""
    return y if factor == 1 else torch.cat((y[:, :1], y[:, 1:] * factor), dim=1)
