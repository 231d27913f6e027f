"""What all splines share: a box between two linear tails, or a circle, and the knots in it."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.arguments import require_flag
from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.soft_clamp import soft_clamp
from invgraph.transforms.transform import Transform, per_sample

Unit = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Spline(Transform):
    """A monotone spline on [-bound, bound]; outside, the identity, or the same spline again on each period.

    A subclass maps the unit interval onto itself: :meth:`_unit`.
    """

    bins: int = 8
    bound: float = 3.0
    learned_bound: bool = False
    circular: bool = False
    min_width: float = 1e-3
    min_height: float = 1e-3

    def __post_init__(self) -> None:
        where = type(self).__name__
        for name in ("learned_bound", "circular"):
            require_flag(where, name, getattr(self, name))
        if isinstance(self.bins, bool) or not isinstance(self.bins, int):
            raise ArgumentError(where, f"bins={self.bins!r}", "bins must be an int")
        if self.bins < 1:
            raise GraphError(where, f"bins={self.bins}", "a spline needs at least 1 bin")
        require_bound(where, self.bound)
        for name in ("min_width", "min_height"):
            require_floor(where, name, getattr(self, name), self.bins)

    @property
    def params_per_element(self) -> int:
        return self._knot_params + self.learned_bound

    @property
    @abstractmethod
    def _knot_params(self) -> int:
        """How many parameters per element the knots take."""

    @abstractmethod
    def _unit(self, t: Tensor, params: Tensor, inverse: bool) -> Unit:
        """The map of [0, 1] onto itself, or its inverse, with the log of its slope, element by element."""

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x, params, inverse=False)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(y, params, inverse=True)

    def _map(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        half: Tensor | float = self.bound
        if self.learned_bound:
            half = half * torch.exp(soft_clamp(params[:, -1], 1.0, "atan"))
        period = 2 * half
        turns = torch.floor((x + half) / period) * period if self.circular else 0.0
        local = x - turns
        # Where the spline does not hold, it is evaluated in the middle, so that no gradient through it is NaN.
        inside = local.abs() <= half
        u, log_slope = self._unit(torch.where(inside, local, 0.0) / period + 0.5, params, inverse)
        y = torch.where(inside, (u - 0.5) * period, local) + turns
        if self.circular:
            y = torch.where(x.isfinite(), y, x)
        return y, per_sample(torch.where(inside, log_slope, 0.0))


def require_bound(where: str, bound: object) -> None:
    """Refuse a bound that is not a positive, finite number."""
    if isinstance(bound, bool) or not isinstance(bound, (int, float)):
        raise ArgumentError(where, f"bound={bound!r}", "bound must be a number")
    if not (math.isfinite(bound) and bound > 0):
        raise GraphError(where, f"bound={bound}", "bound must be positive and finite")


def require_floor(where: str, name: str, floor: object, count: int, what: str = "bins") -> None:
    """Refuse a least size that is not positive, or that leaves nothing to learn of ``count`` sizes that add up to 1."""
    given = f"{name}={floor!r}, {what}={count}"
    if isinstance(floor, bool) or not isinstance(floor, (int, float)):
        raise ArgumentError(where, given, f"{name} must be a number")
    if not floor > 0:
        raise GraphError(where, given, f"{name} must be positive: what is flat has no inverse")
    if floor * count >= 1:
        advice = f"{name} * {what} = {floor * count:g} must be below 1, the size of the whole: make one smaller"
        raise GraphError(where, given, advice)


def partition(raw: Tensor, least: float) -> Tensor:
    """Sizes of bins along axis 1, each at least ``least``, that add up to 1."""
    return least + (1 - least * raw.shape[1]) * torch.softmax(raw, dim=1)


def edges(sizes: Tensor) -> Tensor:
    """Where the bins begin and end, from exactly 0 to exactly 1."""
    inner = sizes[:, :-1].cumsum(1)
    return torch.cat((torch.zeros_like(sizes[:, :1]), inner, torch.ones_like(sizes[:, :1])), dim=1)


def locate(t: Tensor, knots: Tensor) -> Tensor:
    """The bin that each number lies in, with an axis 1 of size one; a knot belongs to the bin on its right."""
    return (t.unsqueeze(1) >= knots[:, 1:-1]).sum(1, keepdim=True)


def ends(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """What a row of numbers at the knots is at the left and at the right end of the bins."""
    return values.gather(1, index).squeeze(1), values.gather(1, index + 1).squeeze(1)
