"""Piecewise quadratic bijections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from invgraph.transforms.spline import Spline, Unit, edges, ends, locate, partition


@dataclass(frozen=True)
class QuadraticSpline(Spline):
    r"""Map [-bound, bound] onto itself along pieces of parabolas: the slope is linear between learned knots.

    .. math:: y = y_k + w_k \left(v_k \alpha + \tfrac12 (v_{k+1} - v_k) \alpha^2\right), \qquad
        \alpha = (x - x_k) / w_k

    with the slope :math:`v_k` at knot k, and :math:`v = 1` at both ends, so that the linear tails follow smoothly.

    Log-det:
        The sum of the log slopes, nats per sample; continuous.

    Arguments:
        bins: number of pieces K; a transform takes 2 K - 1 parameters per element, 2 K if circular.
        bound: outside [-bound, bound] the transform is the identity.
        learned_bound: one more parameter per element scales the bound, by a factor between 1/e and e.
        circular: the numbers are angles: instead of linear tails, f(x + 2 bound) = f(x) + 2 bound, smooth there too.
        min_width: least share of the interval that a piece takes of x.
        min_height: least slope.

    Raises:
        GraphError: no bins, least sizes that leave nothing to learn, a bound that is not positive.

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

    def _unit(self, t: Tensor, params: Tensor, inverse: bool) -> Unit:
        widths = partition(params[:, : self.bins], self.min_width)
        slopes = self._slopes(params[:, self.bins : self._knot_params], widths)
        xs, ys = edges(widths), edges((slopes[:, :-1] + slopes[:, 1:]) / 2 * widths)
        index = locate(t, ys if inverse else xs)
        (x0, x1), (y0, y1), (v0, v1) = ends(xs, index), ends(ys, index), ends(slopes, index)
        # Both directions are sums and products of positive numbers: nothing cancels.
        if inverse:
            share = (t - y0) / (y1 - y0)
            slope = torch.sqrt(v0.square() * (1 - share) + v1.square() * share)
            alpha = share * (v0 + v1) / (v0 + slope)
            return x0 + alpha * (x1 - x0), -torch.log(slope)
        alpha = (t - x0) / (x1 - x0)
        share = alpha * (v0 * (2 - alpha) + v1 * alpha) / (v0 + v1)
        return y0 + share * (y1 - y0), torch.log(v0 * (1 - alpha) + v1 * alpha)

    def _slopes(self, raw: Tensor, widths: Tensor) -> Tensor:
        """Slopes at all knots, of area 1: 1 at the ends (or equal there, on a circle), at least ``min_height``."""
        inner = softplus(raw) + self.min_height
        if self.circular:
            slopes = torch.cat((inner, inner[:, :1]), dim=1)
        elif self.bins == 1:
            return torch.ones_like(widths).repeat_interleave(2, dim=1)
        else:
            # The ends take what the area needs of them for the normalised slopes there to be 1 (Durkan et al.).
            outer = (widths[:, :1] + widths[:, -1:]) / 2
            weights = (widths[:, :-1] + widths[:, 1:]) / 2
            end = (weights * inner).sum(1, keepdim=True) / (1 - outer)
            slopes = torch.cat((end, inner, end), dim=1)
        area = ((slopes[:, :-1] + slopes[:, 1:]) / 2 * widths).sum(1, keepdim=True)
        return self.min_height + (1 - self.min_height) * slopes / area
