"""Monotone piecewise linear splines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.transforms.spline import Mapped, Spline, edges, ends, locate, partition


@dataclass(frozen=True)
class LinearSpline(Spline):
    r"""Map [-bound, bound] onto itself by a piecewise linear function with learned knots.

    .. math:: y = y_k + \frac{y_{k+1} - y_k}{x_{k+1} - x_k} (x - x_k), \qquad x_k \le x < x_{k+1}

    Log-det:
        The sum of the log slopes, in nats per sample. It jumps at the knots.

    Arguments:
        bins: Number K of pieces; the transform takes 2 K parameters per element. Default: 8.
        bound: Half-width of the interval; outside [-bound, bound] the transform is the identity. Default: 3.
        learned_bound: If True, one more parameter per element scales the bound, by a factor between 1/e and e. Default:
            False.
        circular: If True, elements are angles: instead of linear tails, f(x + 2 bound) = f(x) + 2 bound. Default:
            False.
        min_width: Minimum width of a piece, as a fraction of the interval. Default: 0.001.
        min_height: Minimum height of a piece, as a fraction of the interval. Default: 0.001.

    Raises:
        GraphError: If there are no bins, minimum sizes add up to 1 or more, or an argument is not positive.

    References:
        T. Mueller et al., "Neural Importance Sampling", 2018, https://arxiv.org/abs/1808.03856

    Example:
        >>> import torch, invgraph as ig
        >>> spline = ig.LinearSpline(bins=2, bound=1.0)
        >>> params = torch.tensor([0.0, 0.0, 3.0, 0.0]).view(1, 4, 1)  # equal widths; the first piece is higher
        >>> y, log_det = spline.forward(torch.zeros(1, 1), params)
        >>> y, log_det
        (tensor([[0.9033]]), tensor([-2.3365]))
    """

    @property
    def _knot_params(self) -> int:
        return 2 * self.bins

    def _inside(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Mapped:
        xs = edges(partition(params[:, : self.bins], self.min_width), half)
        ys = edges(partition(params[:, self.bins : 2 * self.bins], self.min_height), half)
        if inverse:
            xs, ys = ys, xs
        index = locate(x, xs)
        (x0, x1), (y0, y1) = ends(xs, index), ends(ys, index)
        alpha = (x - x0) / (x1 - x0)
        return y0 + alpha * (y1 - y0), torch.log((y1 - y0) / (x1 - x0))
