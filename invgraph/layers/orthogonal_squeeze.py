"""Learned orthogonal downsampling."""

from __future__ import annotations

from functools import reduce
from typing import get_args

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice, require_count, require_flag
from invgraph.core.constants import WithConstants
from invgraph.core.invertible import Invertible, Result
from invgraph.numerics.linalg import Chart, cosines, own_precision, rotation
from invgraph.shapes import Shape, Tensors, require_divisible


class OrthogonalSqueeze(WithConstants, Invertible):
    r"""Move each patch of ``factor`` positions along every axis into the channels, by a learned orthogonal matrix.

    .. math:: y_c = Q_c D x_c, \qquad Q_c = \exp(A_c) \ \text{or} \ (1 + A_c)^{-1} (1 - A_c), \qquad
        A_c = S_c - S_c^\top

    for the patches :math:`x_c` of each channel, with learned square matrices :math:`S_c` that start at zero and the
    cosine transform D of a patch, so that the layer starts as ``DCT(block=factor)``, which for a factor of 2 is
    :class:`~invgraph.Haar`. ``ig.Inverse(ig.OrthogonalSqueeze(...))`` is learned orthogonal upsampling.

    Shape:
        ``x: (B, C, H, W) -> y: (B, 4C, H/2, W/2)`` for a factor of 2, ordered by channel; signals and volumes likewise.

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input, with spatial sizes divisible by the factor.
        factor: Edge length of the patches, at least 2. Default: 2.
        shared: True for one matrix for all channels instead of one for each. Default: False.
        chart: ``"exp"``, the matrix exponential, or ``"cayley"``, which is cheaper; see
            :class:`~invgraph.OrthogonalLinear`. Default: ``"exp"``.

    Raises:
        GraphError: If a spatial size is not divisible by the factor, the factor is below 2, or the input is a vector.
        ArgumentError: If an argument has the wrong type.

    References:
        C. Etmann, R. Ke, C.-B. Schoenlieb, "iUNets: Fully Invertible U-Nets with Learnable Up- and Downsampling",
        2020, https://arxiv.org/abs/2005.05220

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.OrthogonalSqueeze((1, 2, 2))
        >>> (y,), log_det = layer((torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]),))
        >>> y.shape, bool((y.square().sum() - 30).abs() < 1e-5), log_det
        (torch.Size([1, 4, 1, 1]), True, tensor([0.]))
    """

    range_kind = "any"
    fixed_size_reason = None
    cosine: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        factor: int = 2,
        shared: bool = False,
        chart: Chart = "exp",
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        where, shape = "OrthogonalSqueeze", self.in_shapes[0]
        self.factor = require_count(where, "factor", factor, least=2)
        require_divisible(shape, self.factor, where)
        self.chart = require_choice(where, "chart", chart, get_args(Chart))
        shared = require_flag(where, "shared", shared)
        self.axes = len(shape) - 1
        self.size = self.factor**self.axes
        self.square = nn.Parameter(torch.zeros(1 if shared else shape[0], self.size, self.size))
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        return {"cosine": reduce(torch.kron, [cosines(self.factor)] * self.axes)}

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        require_divisible(self.in_shapes[0], self.factor, self.label)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        channels, *sizes = self.in_shapes[0]
        return ((channels * self.size, *(size // self.factor for size in sizes)),)

    def matrix(self) -> Tensor:
        """Return the matrices of the channels, ``(C, n, n)`` for n positions in a patch; ``(1, n, n)`` if shared."""
        turned = rotation(self.square, self.chart)
        with own_precision(turned):
            return turned @ self.cosine

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        x = xs[0]
        for axis in reversed(range(2, 2 + self.axes)):
            x = torch.unflatten(x, axis, (-1, self.factor))
        places = range(3, 3 + 2 * self.axes, 2)
        x = x.permute(0, 1, *places, *(place - 1 for place in places))  # (B, C, f, f, H/f, W/f)
        sizes = x.shape[2 + self.axes :]
        with own_precision(x):
            y = self.matrix() @ x.flatten(2, 1 + self.axes).flatten(3)
        return (torch.unflatten(y.flatten(1, 2), 2, sizes),), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        y = torch.unflatten(ys[0].flatten(2), 1, (-1, self.size))
        with own_precision(y):
            x = self.matrix().mT @ y
        x = torch.unflatten(torch.unflatten(x, 3, ys[0].shape[2:]), 2, (self.factor,) * self.axes)
        order = [axis for place in range(2, 2 + self.axes) for axis in (place + self.axes, place)]
        x = x.permute(0, 1, *order)
        for axis in range(2, 2 + self.axes):
            x = x.flatten(axis, axis + 1)
        return (x,), x.new_zeros(x.shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factor={self.factor}, chart={self.chart!r}"
