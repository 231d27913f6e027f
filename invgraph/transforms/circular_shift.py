"""Rotation of angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.arguments import require_positive
from invgraph.numerics.interval import Interval, Known
from invgraph.transforms.transform import Transform


@dataclass(frozen=True)
class CircularShift(Transform):
    r"""Rotate each element, an angle.

    .. math:: y = ((x + t + b) \bmod 2 b) - b

    A spline with ``circular=True`` fixes the angle at the ends of its interval; rotations between splines let every
    angle move. An angle outside of [-bound, bound] is taken modulo a full turn.

    Log-det:
        0.

    Arguments:
        bound: Half of a turn, b. Default: pi.

    Raises:
        GraphError: If the bound is not positive.
        ArgumentError: If the bound is not a number.

    References:
        D. J. Rezende et al., "Normalizing Flows on Tori and Spheres", 2020, https://arxiv.org/abs/2002.02428

    Example:
        >>> import math, torch, invgraph as ig
        >>> angle, shift = torch.full((1, 1), 0.75 * math.pi), torch.full((1, 1, 1), 0.5 * math.pi)
        >>> y, log_det = ig.CircularShift().forward(angle, shift)
        >>> y / math.pi, log_det
        (tensor([[-0.7500]]), tensor([0.]))
    """

    bound: float = math.pi

    def __post_init__(self) -> None:
        self._set(bound=require_positive("CircularShift", "bound", self.bound))

    @property
    def domain(self) -> Known:
        return Interval(-self.bound, self.bound)

    @property
    def range(self) -> Known:
        return Interval(-self.bound, self.bound)

    @property
    def params_per_element(self) -> int:
        return 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._turn(x, params[:, 0])

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._turn(y, -params[:, 0])

    def _turn(self, x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        moved = x + shift
        y = torch.remainder(moved + self.bound, 2 * self.bound) - self.bound
        return torch.where(moved.isfinite(), y, moved), x.new_zeros(x.shape[0])
