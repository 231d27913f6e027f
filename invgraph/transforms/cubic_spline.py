"""Monotone piecewise cubic splines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.numerics.root_finding import solve_increasing
from invgraph.transforms.spline import Mapped, Spline, edges, ends, locate, partition


@dataclass(frozen=True)
class CubicSpline(Spline):
    r"""Map [-bound, bound] onto itself by a piecewise cubic function with learned knots, whose slope is continuous.

    .. math:: y = y_k + h_k \left(\theta^2 (1 + (1 - \theta)(2 - \beta)) + \alpha\, \theta (1 - \theta)^2\right), \qquad
        \theta = (x - x_k) / w_k

    with :math:`\alpha = d_k / s_k` and :math:`\beta = d_{k+1} / s_k` for pieces of mean slope :math:`s_k = h_k / w_k`.
    The slope at an inner knot is Steffen's, :math:`d_k = \min(2 s_{k-1}, 2 s_k, p_k)` with the slope :math:`p_k` of the
    parabola through three knots, so that every piece increases. At both ends it is 1, as in the linear tails, or twice
    the mean slope of the piece if that is less.

    Log-det:
        The sum of the log slopes, in nats per sample.

    Arguments:
        bins: Number K of pieces; the transform takes 2 K parameters per element. Default: 8.
        bound: Half-width of the interval; outside [-bound, bound] the transform is the identity. Default: 3.
        learned_bound: If True, one more parameter per element scales the bound, by a factor between 1/e and e. Default:
            False.
        circular: If True, elements are angles: instead of linear tails, f(x + 2 bound) = f(x) + 2 bound, with a
            continuous slope. Default: False.
        min_width: Minimum width of a piece, as a fraction of the interval. Default: 0.001.
        min_height: Minimum height of a piece, as a fraction of the interval. Default: 0.001.

    Raises:
        GraphError: If there are no bins, minimum sizes add up to 1 or more, or an argument is not positive.

    References:
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Cubic-Spline Flows", 2019, https://arxiv.org/abs/1906.02145;
        M. Steffen, "A simple method for monotonic interpolation in one dimension", 1990

    Example:
        >>> import torch, invgraph as ig
        >>> spline = ig.CubicSpline(bins=4)
        >>> y, log_det = spline.forward(torch.tensor([[0.5, 7.0]]), torch.zeros(1, spline.params_per_element, 2))
        >>> y
        tensor([[0.5000, 7.0000]])
    """

    @property
    def _knot_params(self) -> int:
        return 2 * self.bins

    def _inside(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Mapped:
        widths = partition(params[:, : self.bins], self.min_width)
        heights = partition(params[:, self.bins : 2 * self.bins], self.min_height)
        xs, ys, means = edges(widths, half), edges(heights, half), heights / widths
        index = locate(x, ys if inverse else xs)
        (x0, x1), (y0, y1) = ends(xs, index), ends(ys, index)
        mean = means.gather(1, index).squeeze(1)
        alpha, beta = (slope / mean for slope in ends(self._slopes(widths, means), index))

        def piece(theta: Tensor) -> Mapped:
            """Return the fraction of the height, a sum of positive terms, and the log of its slope."""
            rest = 1 - theta
            ratio = theta.square() * (1 + rest * (2 - beta)) + alpha * theta * rest.square()
            slope = alpha * rest.square() + beta * theta.square() + 2 * theta * rest * (3 - alpha - beta)
            return ratio, torch.log(slope)

        if inverse:
            theta = (x - y0) / (y1 - y0)
            theta = solve_increasing(piece, theta, torch.zeros_like(theta), torch.ones_like(theta))
            return x0 + theta * (x1 - x0), -(piece(theta)[1] + torch.log(mean))
        ratio, log_slope = piece((x - x0) / (x1 - x0))
        return y0 + ratio * (y1 - y0), log_slope + torch.log(mean)

    def _slopes(self, widths: Tensor, means: Tensor) -> Tensor:
        """Return the slopes at all knots; for equal pieces they are 1."""
        if self.circular:
            before, after = means.roll(1, 1), means
            inner = _steffen(before, after, widths.roll(1, 1), widths)
            return torch.cat((inner, inner[:, :1]), dim=1)
        inner = _steffen(means[:, :-1], means[:, 1:], widths[:, :-1], widths[:, 1:])
        first, last = (torch.clamp(2 * means[:, place], max=1.0) for place in (slice(0, 1), slice(-1, None)))
        return torch.cat((first, inner, last), dim=1)


def _steffen(before: Tensor, after: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the slope at a knot between two pieces of these mean slopes and widths."""
    parabola = (before * right + after * left) / (left + right)
    return torch.minimum(2 * torch.minimum(before, after), parabola)
