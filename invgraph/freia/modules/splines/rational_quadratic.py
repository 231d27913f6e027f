"""A coupling by rational quadratic splines (Durkan et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.freia.modules.splines.binned import BinnedSpline, Parameters

__all__ = ["RationalQuadraticSpline"]


class RationalQuadraticSpline(BinnedSpline):
    """A coupling by rational quadratic splines; the subnets also choose the derivatives at the inner knots.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        split_len: Channels of the first part: a number, or a fraction.
        bins: Number of bins.
        min_bin_sizes: Smallest width and height of a bin.
        default_domain: Left, right, bottom and top of all bins together where a subnet returns zeros.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural Spline Flows, 2019, https://arxiv.org/abs/1906.04032
    """

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = None,
        subnet_constructor: Any = None,
        split_len: float = 0.5,
        bins: int = 10,
        min_bin_sizes: Sequence[float] = (0.1, 0.1),
        default_domain: Sequence[float] = (-3.0, 3.0, -3.0, 3.0),
    ) -> None:
        inner = {"deltas": bins - 1}
        super().__init__(dims_in, dims_c, subnet_constructor, split_len, bins, inner, min_bin_sizes, default_domain)

    def constrain_parameters(self, parameters: Parameters) -> Parameters:
        result = super().constrain_parameters(parameters)
        inner = functional.softplus(parameters["deltas"] + math.log(math.e - 1))  # zeros give the slope 1
        end = (result["heights"].sum(-1) / result["widths"].sum(-1)).unsqueeze(-1)
        result["deltas"] = torch.cat((end, inner, end), dim=-1)
        return result

    def _spline1(self, x1: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _rational_quadratic(x1, **parameters, rev=rev)

    def _spline2(self, x2: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _rational_quadratic(x2, **parameters, rev=rev)


def _rational_quadratic(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    bottom: Tensor,
    top: Tensor,
    deltas_left: Tensor,
    deltas_right: Tensor,
    rev: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the spline inside a bin, or its inverse, and the log of the forward derivative."""
    width, height = right - left, top - bottom
    slope = height / width
    bend = deltas_left + deltas_right - 2 * slope
    if rev:
        part = (x - bottom) / height
        a = slope - deltas_left + part * bend
        b = deltas_left - part * bend
        c = -slope * part
        t = 2 * c / (-b - torch.sqrt((b * b - 4 * a * c).clamp(min=0)))  # this root is stable where a is near 0
    else:
        t = (x - left) / width
    between = t * (1 - t)
    whole = slope + bend * between
    y = left + t * width if rev else bottom + height * (slope * t * t + deltas_left * between) / whole
    grows = deltas_right * t * t + 2 * slope * between + deltas_left * (1 - t) ** 2
    return y, 2 * torch.log(slope) + torch.log(grows) - 2 * torch.log(whole)
