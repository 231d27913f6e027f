"""The values that a density may have, as a constraint of ``torch.distributions``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from invgraph.shapes import Shape


def as_constraint(ends: Tensor | None, shape: Shape) -> constraints.Constraint:
    """Return the constraint that each element lies between its own ends.

    Arguments:
        ends: Lower and upper ends, ``(2, *shape)``; None if they are not known: then all real numbers.
        shape: Shape of a value, which is one event.
    """
    return constraints.independent(_elementwise(ends), len(shape))


def _elementwise(ends: Tensor | None) -> constraints.Constraint:
    if ends is None or ends.is_meta or torch.compiler.is_compiling():  # there are no values to read
        return constraints.real
    low, high = ends.detach().unbind(0)
    kinds = low.isneginf().all(), low.isfinite().all(), high.isfinite().all(), high.isposinf().all()
    unbounded_below, bounded_below, bounded_above, unbounded_above = map(bool, kinds)
    if unbounded_below and unbounded_above:
        return constraints.real
    if bounded_below and bounded_above:
        return constraints.interval(low, high)
    if bounded_below and unbounded_above:
        return constraints.greater_than_eq(low)
    if unbounded_below and bounded_above:
        return constraints.less_than(high)  # torch has no closed one
    return _Mixed(low, high)


class _Mixed(constraints.Constraint):
    """Constraint to intervals of which some are unbounded; torch has no map from the real numbers to it."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low, self.high = low, high
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return torch.ge(value, self.low) & torch.le(value, self.high)
