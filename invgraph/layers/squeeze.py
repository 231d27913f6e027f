"""Downsampling that moves patches into the channels."""

from __future__ import annotations

import torch

from invgraph.arguments import require_count
from invgraph.core.invertible import Invertible, Result
from invgraph.shapes import Shape, Tensors, require_divisible


class Squeeze(Invertible):
    r"""Move each patch of ``factor`` positions along every axis into the channels (RealNVP's squeeze).

    .. math:: y_{c f^2 + i f + j,\ h,\ w} = x_{c,\ f h + i,\ f w + j} \qquad 0 \le i, j < f

    The output is ordered by channel, then by position in the patch, as in ``torch.nn.PixelUnshuffle``.
    ``ig.Inverse(ig.Squeeze(...))`` upsamples.

    Shape:
        ``x: (B, C, H, W) -> y: (B, 4C, H/2, W/2)`` for a factor of 2; signals and volumes likewise.

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input, with spatial sizes divisible by the factor.
        factor: Edge length of the patches, at least 2. Default: 2.

    Raises:
        GraphError: If a spatial size is not divisible by the factor, the factor is below 2, or the input is a vector.
        ArgumentError: If the factor is not an int.

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), _ = ig.Squeeze((1, 2, 2))((torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]),))
        >>> y.flatten()
        tensor([1., 2., 3., 4.])
    """

    range_kind = "same"
    fixed_size_reason = None

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, factor: int = 2) -> None:
        super().__init__(in_shapes, cond_shapes)
        shape = self.in_shapes[0]
        factor = require_count("Squeeze", "factor", factor, least=2)
        require_divisible(shape, factor, "Squeeze")
        self.factor = factor
        self.axes = len(shape) - 1

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        require_divisible(self.in_shapes[0], self.factor, self.label)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        channels, *sizes = self.in_shapes[0]
        return ((channels * self.factor**self.axes, *(size // self.factor for size in sizes)),)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        x = xs[0]
        for axis in reversed(range(2, 2 + self.axes)):
            x = torch.unflatten(x, axis, (-1, self.factor))
        places = range(3, 3 + 2 * self.axes, 2)
        y = x.permute(0, 1, *places, *(place - 1 for place in places)).flatten(1, 1 + self.axes)
        return (y,), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        y = torch.unflatten(ys[0], 1, (-1, *(self.factor,) * self.axes))
        order = [axis for place in range(2, 2 + self.axes) for axis in (place + self.axes, place)]
        x = y.permute(0, 1, *order)
        for axis in range(2, 2 + self.axes):
            x = x.flatten(axis, axis + 1)
        return (x,), x.new_zeros(x.shape[0])
