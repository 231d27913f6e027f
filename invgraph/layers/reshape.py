"""Layers that change the shape of a value and keep its elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.shapes import Shape, Tensors, as_shape


def _reshape(x: Tensor, shape: Shape) -> Result:
    return (x.reshape(x.shape[0], *shape),), x.new_zeros(x.shape[0])


class Flatten(Invertible):
    r"""Reshape each sample to a vector.

    .. math:: y = (x_1, \dots, x_N)

    Shape:
        ``x: (B, C, ...) -> y: (B, N)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), _ = ig.Flatten((1, 28, 28))((torch.zeros(5, 1, 28, 28),))
        >>> y.shape
        torch.Size([5, 784])
    """

    range_kind = "same"
    fixed_size_reason = None

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return ((math.prod(self.in_shapes[0]),),)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return _reshape(xs[0], self.out_shapes[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return _reshape(ys[0], self.in_shapes[0])


class Reshape(Invertible):
    r"""Reshape each sample, in row-major order.

    .. math:: (y_1, \dots, y_N) = (x_1, \dots, x_N)

    Shape:
        ``x: (B, ...) -> y: (B, *shape)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        shape: New shape, without the batch, with the same number of elements.

    Raises:
        GraphError: If the new shape has a different number of elements.

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), _ = ig.Reshape((8,), shape=(2, 2, 2))((torch.zeros(5, 8),))
        >>> y.shape
        torch.Size([5, 2, 2, 2])
    """

    range_kind = "same"
    fixed_size_reason = "shape= has the number of elements of one size"

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, shape: Sequence[int]) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.shape = as_shape(shape, "Reshape")
        count, wanted = math.prod(self.in_shapes[0]), math.prod(self.shape)
        if count != wanted:
            given = f"{self.in_shapes[0]} to {self.shape}"
            raise GraphError("Reshape", given, f"{count} numbers in, {wanted} out")

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return (self.shape,)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return _reshape(xs[0], self.shape)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return _reshape(ys[0], self.in_shapes[0])
