"""Splitting of one value into several."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from invgraph.arguments import require_int
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, GraphError
from invgraph.shapes import Shape, Tensors, as_shape


class Split(Invertible):
    r"""Cut a value into parts along one axis.

    .. math:: (y_1, y_2, \dots) = x

    Shape:
        ``x: (B, C, ...) -> ys: (B, sizes[0], ...), (B, sizes[1], ...), ...``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        sizes: Sizes of the parts, which must add up to the size of the axis.
        dim: Axis, not counting the batch: 0 is the channel axis. Default: 0.

    Raises:
        GraphError: If the sizes do not add up, or there is no such axis.
        ArgumentError: If an argument has the wrong type.

    Example:
        >>> import torch, invgraph as ig
        >>> (a, b), _ = ig.Split((8, 4, 4), sizes=(2, 6))((torch.zeros(5, 8, 4, 4),))
        >>> a.shape, b.shape
        (torch.Size([5, 2, 4, 4]), torch.Size([5, 6, 4, 4]))
    """

    range_kind = "same"
    fixed_size_reason = None

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, sizes: Sequence[int], dim: int = 0) -> None:
        super().__init__(in_shapes, cond_shapes)
        shape = self.in_shapes[0]
        if not isinstance(sizes, Sequence):
            raise ArgumentError("Split", f"sizes={sizes!r}", "sizes must be a tuple of ints, one for each part")
        dim = require_int("Split", "dim", dim)
        if not 0 <= dim < len(shape):
            raise GraphError("Split", f"dim={dim} of shape {shape}", f"dim must be in 0..{len(shape) - 1}, no batch")
        self.sizes = as_shape(sizes, "Split")
        self.dim = dim
        self._check_sizes("Split")

    def _check_sizes(self, where: str) -> None:
        shape = self.in_shapes[0]
        if sum(self.sizes) != shape[self.dim]:
            total = "+".join(map(str, self.sizes))
            given = f"sizes {self.sizes} for axis {self.dim} of {shape}"
            raise GraphError(where, given, f"{total} != {shape[self.dim]}")

    def _resize(self, before: tuple[Shape, ...]) -> None:
        self._check_sizes(self.label)
        super()._resize(before)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        shape = self.in_shapes[0]
        return tuple((*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.sizes)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return xs[0].split(self.sizes, dim=self.dim + 1), xs[0].new_zeros(xs[0].shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (torch.cat(ys, dim=self.dim + 1),), ys[0].new_zeros(ys[0].shape[0])
