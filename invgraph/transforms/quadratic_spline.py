"""Monotone piecewise quadratic splines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from invgraph.transforms.spline import Mapped, Spline, edges, ends, locate, partition


@dataclass(frozen=True)
class QuadraticSpline(Spline):
    r"""Map [-bound, bound] onto itself by a piecewise quadratic function, whose slope is linear between learned knots.

    .. math:: y = y_k + w_k \left(v_k \alpha + \tfrac12 (v_{k+1} - v_k) \alpha^2\right), \qquad
        \alpha = (x - x_k) / w_k

    with slope :math:`v_k` at knot k, and :math:`v = 1` at both ends, so that the linear tails continue smoothly.

    Log-det:
        The sum of the log slopes, in nats per sample; continuous.

    Arguments:
        bins: Number K of pieces; the transform takes 2 K - 1 parameters per element, 2 K if circular. Default: 8.
        bound: Half-width of the interval; outside [-bound, bound] the transform is the identity. Default: 3.
        learned_bound: If True, one more parameter per element scales the bound, by a factor between 1/e and e. Default:
            False.
        circular: If True, elements are angles: instead of linear tails, f(x + 2 bound) = f(x) + 2 bound, which is
            smooth as well. Default: False.
        min_width: Minimum width of a piece, as a fraction of the interval. Default: 0.001.
        min_height: Minimum slope. Default: 0.001.

    Raises:
        GraphError: If there are no bins, minimum sizes add up to 1 or more, or an argument is not positive.

    References:
        T. Mueller et al., "Neural Importance Sampling", 2018, https://arxiv.org/abs/1808.03856; C. Durkan et al.,
        "Neural Spline Flows", 2019, https://arxiv.org/abs/1906.04032

    Example:
        >>> import torch, invgraph as ig
        >>> spline = ig.QuadraticSpline(bins=4)
        >>> y, log_det = spline.forward(torch.tensor([[0.5, 7.0]]), torch.zeros(1, spline.params_per_element, 2))
        >>> y, log_det
        (tensor([[0.5000, 7.0000]]), tensor([0.]))
    """

    @property
    def _knot_params(self) -> int:
        return 2 * self.bins - (not self.circular)

    def _inside(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Mapped:
        widths = partition(params[:, : self.bins], self.min_width)
        slopes = self._slopes(params[:, self.bins : self._knot_params], widths)
        xs, ys = edges(widths, half), edges((slopes[:, :-1] + slopes[:, 1:]) / 2 * widths, half)
        index = locate(x, ys if inverse else xs)
        (x0, x1), (y0, y1), (v0, v1) = ends(xs, index), ends(ys, index), ends(slopes, index)
        # Both directions are sums and products of positive terms, so nothing cancels.
        if inverse:
            ratio = (x - y0) / (y1 - y0)
            slope = torch.sqrt(v0.square() * (1 - ratio) + v1.square() * ratio)
            alpha = ratio * (v0 + v1) / (v0 + slope)
            return x0 + alpha * (x1 - x0), -torch.log(slope)
        alpha = (x - x0) / (x1 - x0)
        ratio = alpha * (v0 * (2 - alpha) + v1 * alpha) / (v0 + v1)
        return y0 + ratio * (y1 - y0), torch.log(v0 * (1 - alpha) + v1 * alpha)

    def _slopes(self, raw: Tensor, widths: Tensor) -> Tensor:
        """Slopes at all knots, at least ``min_height``, with integral 1; the ends are 1, or equal if circular."""
        inner = softplus(raw) + self.min_height
        if self.circular:
            slopes = torch.cat((inner, inner[:, :1]), dim=1)
        elif self.bins == 1:
            return torch.ones_like(widths).repeat_interleave(2, dim=1)
        else:
            # Chosen so that the slopes at the ends are 1 once normalized (Durkan et al.).
            outer = (widths[:, :1] + widths[:, -1:]) / 2
            weights = (widths[:, :-1] + widths[:, 1:]) / 2
            end = (weights * inner).sum(1, keepdim=True) / (1 - outer)
            slopes = torch.cat((end, inner, end), dim=1)
        area = ((slopes[:, :-1] + slopes[:, 1:]) / 2 * widths).sum(1, keepdim=True)
        return self.min_height + (1 - self.min_height) * slopes / area
