"""Data and conditions of a training run, of which batches of rows are taken."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from invgraph.errors import ArgumentError, ShapeError
from invgraph.shapes import Structured, Tensors


class Rows:
    """Data and conditions, of which batches of rows are taken."""

    def __init__(self, x: Structured, c: Structured) -> None:
        self.x, self.c = _tensors("x", x), _tensors("c", c)
        self.bare = isinstance(x, Tensor), isinstance(c, Tensor)
        self.count = len(self.x[0]) if self.x and self.x[0].ndim else 0
        if any(value.ndim == 0 or len(value) != self.count for value in (*self.x, *self.c)):
            sizes = ", ".join(str(tuple(value.shape)) for value in (*self.x, *self.c))
            raise ShapeError("fit", f"tensors of shapes {sizes}", "data and conditions have the same number of rows")
        if any(value.requires_grad for value in (*self.x, *self.c)):
            advice = "a network made them, and would not be trained: pass x.detach(), or run it in a FeatureNode"
            raise ArgumentError("fit", "data or conditions with gradients", advice)
        if self.count < 2:
            raise ShapeError("fit", f"{self.count} rows", "training needs at least two rows, one of them held out")

    def take(self, rows: Tensor) -> Iterator[Structured]:
        for values, bare in zip((self.x, self.c), self.bare, strict=True):
            taken = tuple(value[rows.to(value.device)] for value in values)
            yield taken[0] if bare else taken


def _tensors(name: str, values: Structured) -> Tensors:
    several = (values,) if isinstance(values, Tensor) else values
    if not isinstance(several, (tuple, list)) or not all(isinstance(value, Tensor) for value in several):
        raise ArgumentError("fit", f"{name}: {type(values).__name__}", f"{name} must be a tensor or a tuple of tensors")
    return tuple(several)
