"""Monotone rational quadratic splines (neural spline flows)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from invgraph.arguments import as_number
from invgraph.errors import GraphError
from invgraph.fused.rational_quadratic import RationalQuadraticKernel
from invgraph.fused.switch import fused
from invgraph.numerics.spline import solve
from invgraph.torch_internals import is_plain
from invgraph.transforms.spline import Mapped, Spline, edges, ends, locate, partition


@dataclass(frozen=True)
class RationalQuadraticSpline(Spline):
    r"""Map [-bound, bound] onto itself by a monotone rational quadratic spline with learned knots and slopes.

    .. math:: y = y_k + \frac{h_k \left(s_k \theta^2 + d_k \theta (1 - \theta)\right)}
        {s_k + (d_k + d_{k+1} - 2 s_k) \theta (1 - \theta)}, \qquad
        \theta = (x - x_k) / w_k, \quad s_k = h_k / w_k

    with slope :math:`d_k` at knot k, and :math:`d = 1` at both ends, so that the linear tails continue smoothly.

    Log-det:
        The sum of the log slopes, in nats per sample; continuous.

    Arguments:
        bins: Number K of pieces; the transform takes 3 K - 1 parameters per element, 3 K if circular. Default: 8.
        bound: Half-width of the interval; outside [-bound, bound] the transform is the identity. Default: 3.
        learned_bound: If True, one more parameter per element scales the bound, by a factor between 1/e and e. Default:
            False.
        circular: If True, elements are angles: instead of linear tails, f(x + 2 bound) = f(x) + 2 bound, which is
            smooth as well. Default: False.
        min_width: Minimum width of a piece, as a fraction of the interval. Default: 0.001.
        min_height: Minimum height of a piece, as a fraction of the interval. Default: 0.001.
        min_slope: Minimum slope at a knot, in (0, 1). Default: 0.001.

    Raises:
        GraphError: If there are no bins, minimum sizes add up to 1 or more, or an argument is not positive.

    References:
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Neural Spline Flows", 2019,
        https://arxiv.org/abs/1906.04032; D. J. Rezende et al., "Normalizing Flows on Tori and Spheres", 2020,
        https://arxiv.org/abs/2002.02428

    Example:
        >>> import torch, invgraph as ig
        >>> spline = ig.RationalQuadraticSpline(bins=8, bound=5.0)
        >>> spline.params_per_element
        23
        >>> y, log_det = spline.forward(torch.tensor([[0.5, 7.0]]), torch.zeros(1, 23, 2))
        >>> y
        tensor([[0.5000, 7.0000]])
    """

    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        where = "RationalQuadraticSpline"
        min_slope = as_number(where, "min_slope", self.min_slope)
        if not 0 < min_slope < 1:
            raise GraphError(where, f"min_slope={min_slope}", "min_slope must lie in (0, 1)")
        self._set(min_slope=min_slope)

    @property
    def _knot_params(self) -> int:
        return 3 * self.bins - (not self.circular)

    def _map(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if self.learned_bound or self.circular or not (is_plain(x) and fused.enabled):
            return super()._map(x, params, inverse)
        floors = self.min_width, self.min_height, self.min_slope
        return RationalQuadraticKernel(
            partial(super()._map, inverse=inverse), self.bins, self.bound, floors, inverse
        ).run(x, params)

    def _inside(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Mapped:
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            piece = self._traced_piece(x, half, params, inverse)
            # A sum may be rounded to the other side of a value close to a knot than in the comparison before.
            inside = torch.maximum(torch.minimum(x, piece[2 * inverse + 1]), piece[2 * inverse])
            return _curve(x + (inside - x).detach(), piece, inverse)
        xs = edges(partition(params[:, : self.bins], self.min_width), half)
        ys = edges(partition(params[:, self.bins : 2 * self.bins], self.min_height), half)
        index = locate(x, ys if inverse else xs)
        (x0, x1), (y0, y1) = ends(xs, index), ends(ys, index)
        d0, d1 = ends(self._slopes(params[:, 2 * self.bins : self._knot_params]), index)
        return _curve(x, Piece(x0, x1, y0, y1, d0, d1), inverse)

    def _traced_piece(self, x: Tensor, half: Tensor | float, params: Tensor, inverse: bool) -> Piece:
        """Return the pieces by sums over all of them instead of a gather, which the compiler puts into its loops."""
        rows = params.transpose(0, 1).flatten(1)
        # The compiler writes what is joined into memory, a row without gaps for each parameter, and vectorizes loops
        # over that; otherwise each loop would read the parameters as they lie.
        rows = torch.cat((rows[: self.bins], rows[self.bins :]))
        flat, half = x.reshape(-1), half.reshape(-1) if isinstance(half, Tensor) else half
        raw = rows.split((self.bins, self.bins, self._knot_params - 2 * self.bins, int(self.learned_bound)))
        sizes = [_sizes(own, least, half) for own, least in zip(raw, (self.min_width, self.min_height), strict=False)]
        edge, number = sizes[inverse][0] - half, torch.zeros_like(flat)
        for size in sizes[inverse][1:].unbind():  # the compiler would end its loops before and after a cumsum
            number = number + (flat >= edge).to(flat.dtype)
            edge = edge + size
        places = torch.arange(self.bins, dtype=flat.dtype, device=flat.device).unsqueeze(1)
        before, own, last = places < number, places == number, number == self.bins - 1
        ends: list[Tensor] = []
        for size in sizes:
            start = torch.where(before, size, 0.0).sum(0) - half
            ends += [start, torch.where(last, half, start + torch.where(own, size, 0.0).sum(0))]
        slopes = [self._slope(raw[2], places, number + end) for end in (0, 1)]
        return Piece(*[value.view(x.shape) for value in (*ends, *slopes)])

    def _slope(self, raw: Tensor, places: Tensor, number: Tensor) -> Tensor:
        """Return the slope at the knot of each element."""
        # Of the knots 0 to K, those at both ends have no parameter, or one and the same.
        found = torch.where(places[0 if self.circular else 1 :] == number, raw, 0.0).sum(0)
        if self.circular:
            found = torch.where(number == self.bins, raw[0], found)
        return self.min_slope + softplus(found + math.log(math.expm1(1 - self.min_slope)))

    def _slopes(self, raw: Tensor) -> Tensor:
        """Slopes at all knots; parameters of zero give 1."""
        inner = self.min_slope + softplus(raw + math.log(math.expm1(1 - self.min_slope)))
        if self.circular:
            return torch.cat((inner, inner[:, :1]), dim=1)
        one = torch.ones_like(raw[:, :1]) if self.bins > 1 else raw.new_ones(raw.shape[0], 1, *raw.shape[2:])
        return torch.cat((one, inner, one), dim=1)


class Piece(NamedTuple):
    """The piece of each element: its ends, the values there, and the slopes there."""

    x0: Tensor
    x1: Tensor
    y0: Tensor
    y1: Tensor
    d0: Tensor
    d1: Tensor


def _curve(x: Tensor, piece: Piece, inverse: bool) -> Mapped:
    """Return the result and the log slope."""
    x0, x1, y0, y1, d0, d1 = piece
    s = (y1 - y0) / (x1 - x0)
    theta = solve((x - y0) / (y1 - y0), s, d0, d1) if inverse else (x - x0) / (x1 - x0)
    rest = 1 - theta
    both = theta * rest
    denominator = s + (d0 + d1 - 2 * s) * both
    numerator = d1 * theta.square() + 2 * s * both + d0 * rest.square()
    log_slope = 2 * (torch.log(s) - torch.log(denominator)) + torch.log(numerator)
    if inverse:
        return x0 + theta * (x1 - x0), -log_slope
    return y0 + (y1 - y0) * (s * theta.square() + d0 * both) / denominator, log_slope


def _sizes(raw: Tensor, least: float, half: Tensor | float) -> Tensor:
    """Return the sizes of the pieces, with a row for each."""
    free = torch.exp(raw - raw.amax(0).detach())  # the sizes do not depend on it
    return free * ((1 - least * len(raw)) * 2 * half / free.sum(0)) + least * 2 * half
