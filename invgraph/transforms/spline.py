"""Base class of the splines, and helpers for their bins."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.arguments import require_count, require_flag, require_positive
from invgraph.errors import GraphError
from invgraph.numerics.interval import Interval, Known, carried, confined, hull
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.soft_clamp import soft_clamp
from invgraph.transforms.transform import Transform

Mapped = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Spline(Transform):
    """Monotone spline on [-bound, bound], continued by the identity or, if circular, periodically.

    Subclasses define :meth:`_inside`, a monotone map of the interval onto itself. Positions stay those of the data: a
    map to [0, 1] and back would round both.
    """

    bins: int = 8
    bound: float = 3.0
    learned_bound: bool = False
    circular: bool = False
    min_width: float = 1e-3
    min_height: float = 1e-3

    def __post_init__(self) -> None:
        where = type(self).__name__
        bins = require_count(where, "bins", self.bins)
        self._set(
            bins=bins,
            bound=require_positive(where, "bound", self.bound),
            learned_bound=require_flag(where, "learned_bound", self.learned_bound),
            circular=require_flag(where, "circular", self.circular),
            min_width=require_floor(where, "min_width", self.min_width, bins),
            min_height=require_floor(where, "min_height", self.min_height, bins),
        )

    def follow(self, interval: Known, *, inverse: bool) -> Known:
        """Return the interval itself, widened to that which is mapped onto itself; outside, numbers stay."""
        half, interval = self.bound * (math.e if self.learned_bound else 1.0), confined(interval)
        if interval is None:
            return None
        own = self._whole_turns(interval, half) if self.circular else Interval(-half, half)
        return carried(interval, own, hull((interval, own)))

    def _whole_turns(self, interval: Interval, half: float) -> Interval:
        """Return the interval between the seams around another; between the farthest, where their places are learned.

        A circular spline maps every turn onto itself, but not a part of one.
        """
        low, high = interval
        if self.learned_bound:
            return Interval(low - 2 * half, high + 2 * half)
        first, last = ((end / half + 1) / 2 for end in interval)  # in turns; a seam may be rounded
        low = low if math.isinf(low) else half * (2 * math.floor(first + 1e-6) - 1)
        return Interval(low, high if math.isinf(high) else half * (2 * math.ceil(last - 1e-6) - 1))

    @property
    def params_per_element(self) -> int:
        return self._knot_params + self.learned_bound

    @property
    @abstractmethod
    def _knot_params(self) -> int:
        """Number of parameters per element for the knots."""

    @abstractmethod
    def _inside(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Mapped:
        """Apply the map of [-half, half] onto itself, or its inverse; return result and log slope, elementwise."""

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
        if self.circular:  # rounding may leave the interval at a seam; the shift back is no part of the gradient
            end = torch.as_tensor(half, dtype=x.dtype, device=x.device)
            local = local + (torch.minimum(torch.maximum(local, -end), end) - local).detach()
        # Outside, the spline is evaluated at its middle, so that no gradient through it is NaN.
        inside = local.abs() <= half
        y, log_slope = self._inside(torch.where(inside, local, 0.0), half, params, inverse)
        y = torch.where(inside, y, local) + turns
        if self.circular:
            y = torch.where(x.isfinite(), y, x)
        return y, per_sample(torch.where(inside, log_slope, 0.0))


def require_floor(where: str, name: str, floor: object, count: int, count_name: str = "bins") -> float:
    """Return a minimum size that is positive and small enough for ``count`` sizes with a sum of 1 to differ."""
    least = require_positive(where, name, floor)
    if least * count >= 1:
        given = f"{name}={least}, {count_name}={count}"
        advice = f"{name} * {count_name} = {least * count:g} must be below 1, the total size: make one of them smaller"
        raise GraphError(where, given, advice)
    return least


def partition(raw: Tensor, least: float) -> Tensor:
    """Return sizes of bins along axis 1, each at least ``least``, with a sum of 1."""
    return least + (1 - least * raw.shape[1]) * torch.softmax(raw, dim=1)


def edges(sizes: Tensor, half: Tensor | float) -> Tensor:
    """Return the edges of bins that share the interval, from exactly -half to exactly half."""
    half = half.unsqueeze(1) if isinstance(half, Tensor) else half
    inner = sizes[:, :-1].cumsum(1) * (2 * half) - half
    last = torch.ones_like(sizes[:, :1]) * half
    return torch.cat((-last, inner, last), dim=1)


def locate(x: Tensor, knots: Tensor) -> Tensor:
    """Return the index of each element's bin, with an axis 1 of size one; a knot belongs to the bin on its right."""
    return (x.unsqueeze(1) >= knots[:, 1:-1]).sum(1, keepdim=True)


def ends(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values at the left and at the right edge of the given bins."""
    return values.gather(1, index).squeeze(1), values.gather(1, index + 1).squeeze(1)
