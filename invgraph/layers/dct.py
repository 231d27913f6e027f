"""Discrete cosine transform, over whole axes or in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from invgraph.core.constants import WithConstants
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.numerics.linalg import cosines, own_precision
from invgraph.shapes import Shape, Tensors, as_shape, require_divisible


class DCT(WithConstants, Invertible):
    r"""Apply the orthonormal DCT-II to each channel, over its whole size or in blocks that become channels.

    .. math:: y_k = \sqrt{\frac{2 - \delta_{k0}}{N}} \sum_{n=0}^{N-1} x_n \cos \frac{\pi (2 n + 1) k}{2 N}

    along every spatial axis. Over whole axes the shape does not change, and low frequencies come first: a
    :class:`~invgraph.Split` after it separates coarse from fine structure. In blocks of 2 it equals
    :class:`~invgraph.Haar`; blocks of 8 are those of JPEG.

    Shape:
        ``x: (B, C, H, W) -> y: (B, C, H, W)``; in blocks of size b ``y: (B, C b^2, H/b, W/b)``, ordered by channel,
        then by frequency along the first axis, then along the next. Signals and volumes likewise; a vector is
        transformed along its only axis.

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        block: Edge length of the blocks, at least 2; None to transform whole axes.

    Raises:
        GraphError: If a size is not divisible by the block, or blocks are given for a vector.

    References:
        N. Ahmed, T. Natarajan, K. R. Rao, "Discrete Cosine Transform", 1974, https://doi.org/10.1109/T-C.1974.223784;
        J.-H. Jacobsen et al., "Excessive Invariance Causes Adversarial Vulnerability", 2018 (in place of pooling),
        https://arxiv.org/abs/1811.00401

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.DCT((1, 4))((torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]),))
        >>> y
        tensor([[[ 5.0000, -2.2304,  0.0000, -0.1585]]])
    """

    range_kind = "any"
    fixed_size_reason = None

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, block: int | None = None) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.axes = max(len(self.in_shapes[0]) - 1, 1)
        self.block = None if block is None else as_shape((block,), "DCT (block)")[0]
        if self.block == 1:
            raise GraphError("DCT", "block=1", "a block of one element has a single frequency: use block=2 or more")
        if self.block is not None:
            require_divisible(self.in_shapes[0], self.block, "DCT")
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        return {f"matrix_{index}": cosines(size) for index, size in enumerate(self.sizes)}

    @property
    def sizes(self) -> Shape:
        """Sizes of what is transformed at once, for each axis."""
        shape = self.in_shapes[0]
        return shape[1:] or shape if self.block is None else (self.block,) * self.axes

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if self.block is not None:
            require_divisible(self.in_shapes[0], self.block, self.label)
        else:
            self._renew_constants()

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        if self.block is None:
            return self.in_shapes
        channels, *sizes = self.in_shapes[0]
        return ((channels * self.block**self.axes, *(size // self.block for size in sizes)),)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        x = xs[0]
        if self.block is None:
            y = self._along(x, range(x.ndim - self.axes, x.ndim), inverse=False)
        else:
            for axis in reversed(range(2, 2 + self.axes)):
                x = torch.unflatten(x, axis, (-1, self.block))
            # Axes (B, C, H/b, b, W/b, b): every other one counts positions within a block.
            within = range(3, 3 + 2 * self.axes, 2)
            y = self._along(x, within, inverse=False).movedim(tuple(within), tuple(range(2, 2 + self.axes)))
            y = y.flatten(1, 1 + self.axes)
        return (y,), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        y = ys[0]
        if self.block is None:
            x = self._along(y, range(y.ndim - self.axes, y.ndim), inverse=True)
        else:
            within = range(3, 3 + 2 * self.axes, 2)
            x = torch.unflatten(y, 1, (-1, *self.sizes)).movedim(tuple(range(2, 2 + self.axes)), tuple(within))
            x = self._along(x, within, inverse=True)
            for axis in range(2, 2 + self.axes):
                x = x.flatten(axis, axis + 1)
        return (x,), x.new_zeros(x.shape[0])

    def _along(self, x: Tensor, axes: range, inverse: bool) -> Tensor:
        with own_precision(x):
            for index, axis in enumerate(axes):
                matrix = self.get_buffer(f"matrix_{index}")
                x = (x.transpose(axis, -1) @ (matrix if inverse else matrix.t())).transpose(axis, -1)
        return x

    def extra_repr(self) -> str:
        return super().extra_repr() if self.block is None else f"{super().extra_repr()}, block={self.block}"
