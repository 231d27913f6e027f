"""Monotone polynomials in Bernstein form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.arguments import require_count, require_positive
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.root_finding import solve_increasing
from invgraph.transforms.spline import require_floor
from invgraph.transforms.transform import Unbounded


@dataclass(frozen=True)
class Bernstein(Unbounded):
    r"""Map [-bound, bound] onto itself by one increasing polynomial, which is smooth and has no knots.

    .. math:: u = \sum_{k=0}^n \theta_k \binom{n}{k} t^k (1 - t)^{n - k}, \qquad
        t = \frac{x + \text{bound}}{2 \, \text{bound}}, \quad y = (2 u - 1) \, \text{bound}

    with coefficients that increase from 0 to 1. The first and the last increment are 1/n, so the slope is 1 at both
    ends, where the identity takes over. The inverse is found by bracketing and Newton's method, to the precision of the
    dtype; its gradient comes from the implicit function theorem.

    Log-det:
        The sum of the log slopes, in nats per sample.

    Arguments:
        degree: Degree n of the polynomial, at least 4; the transform takes n - 2 parameters per element. Default: 12.
        bound: Half-width of the interval; outside [-bound, bound] the transform is the identity. Default: 3.
        min_step: Minimum difference of neighboring coefficients, which range from 0 to 1. Default: 0.001.

    Raises:
        GraphError: If the degree is below 4, ``min_step * degree`` is 1 or more, or an argument is not positive.

    References:
        S. Ramasinghe et al., "Robust normalizing flows using Bernstein-type polynomials", 2021,
        https://arxiv.org/abs/2102.03509; R. T. Farouki, "The Bernstein polynomial basis: A centennial retrospective",
        2012, https://doi.org/10.1016/j.cagd.2012.03.001

    Example:
        >>> import torch, invgraph as ig
        >>> polynomial = ig.Bernstein(degree=8)
        >>> y, log_det = polynomial.forward(torch.tensor([[0.5, 7.0]]), torch.zeros(1, 6, 2))
        >>> y
        tensor([[0.5000, 7.0000]])
    """

    degree: int = 12
    bound: float = 3.0
    min_step: float = 1e-3

    def __post_init__(self) -> None:
        where = "Bernstein"
        degree = require_count(where, "degree", self.degree, least=4)  # the slopes at both ends are fixed
        bound = require_positive(where, "bound", self.bound)
        min_step = require_floor(where, "min_step", self.min_step, degree, "degree")
        self._set(degree=degree, bound=bound, min_step=min_step)

    @property
    def params_per_element(self) -> int:
        return self.degree - 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        polynomial = _Polynomial(self._steps(params))
        inside = x.abs() <= self.bound
        u, log_slope = polynomial(self._to_unit(x, inside))
        return self._from_unit(x, inside, u), per_sample(torch.where(inside, log_slope, 0.0))

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        polynomial = _Polynomial(self._steps(params))
        inside = y.abs() <= self.bound
        target = self._to_unit(y, inside)
        t = solve_increasing(polynomial, target, torch.zeros_like(target), torch.ones_like(target))
        # Rounding may put a root at an end slightly outside the interval.
        log_slope = polynomial(t.clamp(0.0, 1.0))[1]
        return self._from_unit(y, inside, t), -per_sample(torch.where(inside, log_slope, 0.0))

    def _to_unit(self, x: Tensor, inside: Tensor) -> Tensor:
        return torch.where(inside, x, 0.0) / (2 * self.bound) + 0.5

    def _from_unit(self, x: Tensor, inside: Tensor, u: Tensor) -> Tensor:
        return torch.where(inside, (u - 0.5) * (2 * self.bound), x)

    def _steps(self, params: Tensor) -> Tensor:
        """Differences of neighboring coefficients, which are positive and sum to 1."""
        inner = 1 - 2 / self.degree - self.min_step * self.params_per_element
        steps = self.min_step + inner * torch.softmax(params, dim=1)
        end = torch.full_like(steps[:, :1], 1 / self.degree)
        return torch.cat((end, steps, end), dim=1)


@dataclass  # not frozen: torch 2.8 can't compile how a frozen one sets its fields
class _Polynomial:
    """Polynomial on the unit interval, from the increments of its coefficients, ``(B, degree, ...)``."""

    steps: Tensor

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and log slope at t, which has the shape of the data or further leading axes.

        De Casteljau's algorithm only adds positive terms, so nothing cancels.
        """
        degree = self.steps.shape[1]
        dim = t.ndim - self.steps.ndim + 2  # axis of the coefficients
        t = t.unsqueeze(dim)
        rest = 1 - t
        zero = torch.zeros_like(self.steps[:, :1])
        value, slope = torch.cat((zero, self.steps.cumsum(1)), dim=1), self.steps
        while value.ndim < t.ndim:
            value, slope = value.unsqueeze(0), slope.unsqueeze(0)
        for left in range(degree, 1, -1):
            value = rest * value.narrow(dim, 0, left) + t * value.narrow(dim, 1, left)
            slope = rest * slope.narrow(dim, 0, left - 1) + t * slope.narrow(dim, 1, left - 1)
        value = rest * value.narrow(dim, 0, 1) + t * value.narrow(dim, 1, 1)
        return value.squeeze(dim), torch.log(slope.squeeze(dim) * degree)
