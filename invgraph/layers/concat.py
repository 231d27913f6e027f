"""Concatenation of several values into one."""

from __future__ import annotations

import torch

from invgraph.arguments import require_int
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.shapes import Shape, Tensors


class Concat(Invertible):
    r"""Join values along one axis.

    .. math:: y = (x_1, x_2, \dots)

    Shape:
        ``xs: (B, C1, ...), (B, C2, ...), ... -> y: (B, C1 + C2 + ..., ...)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shapes of the inputs, equal except along the axis.
        dim: Axis, not counting the batch: 0 is the channel axis. Default: 0.

    Raises:
        GraphError: If there are fewer than two inputs, their shapes differ along another axis, or there is no such
            axis.

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), _ = ig.Concat(((2,), (3,)))((torch.zeros(5, 2), torch.zeros(5, 3)))
        >>> y.shape
        torch.Size([5, 5])
    """

    range_kind = "same"
    arity = None
    fixed_size_reason = None

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, dim: int = 0) -> None:
        super().__init__(in_shapes, cond_shapes)
        first = self.in_shapes[0] if self.in_shapes else ()
        dim = require_int("Concat", "dim", dim)
        if len(self.in_shapes) < 2:
            raise GraphError("Concat", f"{len(self.in_shapes)} inputs", "needs at least two inputs")
        if not 0 <= dim < len(first):
            raise GraphError("Concat", f"dim={dim} of shape {first}", f"dim must be in 0..{len(first) - 1}, no batch")
        self.dim = dim
        self._check_shapes("Concat")

    def _check_shapes(self, where: str) -> None:
        first, dim = self.in_shapes[0], self.dim
        for shape in self.in_shapes[1:]:
            if (*shape[:dim], *shape[dim + 1 :]) != (*first[:dim], *first[dim + 1 :]) or len(shape) != len(first):
                given = f"inputs of shapes {', '.join(map(str, self.in_shapes))}"
                raise GraphError(where, given, f"the shapes may differ along axis {dim} only")

    def _resize(self, before: tuple[Shape, ...]) -> None:
        self._check_shapes(self.label)  # vectors too may have other sizes: only the place of the cuts changes

    @property
    def sizes(self) -> list[int]:
        """Sizes of the inputs along the axis."""
        return [shape[self.dim] for shape in self.in_shapes]

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        first = self.in_shapes[0]
        return ((*first[: self.dim], sum(self.sizes), *first[self.dim + 1 :]),)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return (torch.cat(xs, dim=self.dim + 1),), xs[0].new_zeros(xs[0].shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return ys[0].split(self.sizes, dim=self.dim + 1), ys[0].new_zeros(ys[0].shape[0])
