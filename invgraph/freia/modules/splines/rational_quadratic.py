"""Rational quadratic splines (Durkan et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.freia.affine import require_channels
from invgraph.freia.modules.base import require_one, require_subnet
from invgraph.freia.modules.splines.binned import BinnedSpline, BinnedSplineBase, Parameters

__all__ = ["ElementwiseRationalQuadraticSpline", "RationalQuadraticSpline", "rational_quadratic_spline"]


class RationalQuadraticSpline(BinnedSpline):
    """A coupling by rational quadratic splines; the subnets also choose the derivatives at the inner knots.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        split_len: Channels of the first part: a number, or a fraction.
        bins: Number of bins.
        kwargs: Further arguments of :class:`BinnedSplineBase`.

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
        **kwargs: Any,
    ) -> None:
        counts = {"deltas": bins - 1}
        super().__init__(dims_in, dims_c, subnet_constructor, split_len, bins=bins, parameter_counts=counts, **kwargs)

    def constrain_parameters(self, parameters: Parameters) -> Parameters:
        return _with_ends(super().constrain_parameters(parameters))

    def _spline1(self, x1: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(x1, **parameters, rev=rev)

    def _spline2(self, x2: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(x2, **parameters, rev=rev)


class ElementwiseRationalQuadraticSpline(BinnedSplineBase):
    """A rational quadratic spline for each element, learned or chosen by a subnet from the conditions alone.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions, of the input's spatial size. Without any, the splines are learned.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``; not used without conditions.
        bins: Number of bins.
        kwargs: Further arguments of :class:`BinnedSplineBase`.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = (), subnet_constructor: Any = None, bins: int = 10, **kwargs: Any
    ) -> None:
        super().__init__(dims_in, dims_c, bins=bins, parameter_counts={"deltas": bins - 1}, **kwargs)
        shape = require_one(self, self.dims_in)
        self.channels = shape[0]
        self.condition_length = sum(condition[0] for condition in self.dims_c)
        self.conditional = len(self.dims_c) > 0
        count = self.channels * sum(self.parameter_counts.values())
        if self.conditional:
            self.subnet = require_subnet(self, subnet_constructor)(self.condition_length, count)
        else:
            self.spline_parameters = nn.Parameter(torch.zeros(count, *shape[1:]))

    def constrain_parameters(self, parameters: Parameters) -> Parameters:
        return _with_ends(super().constrain_parameters(parameters))

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        value = x[0]
        if self.conditional:
            raw = self.subnet(torch.cat(tuple(c), dim=1)).to(value.dtype)
            require_channels(raw, self.channels * sum(self.parameter_counts.values()), type(self).__name__)
        else:
            raw = self.spline_parameters.unsqueeze(0).expand(value.shape[0], *self.spline_parameters.shape)
        parameters = self.constrain_parameters(self.split_parameters(raw, self.channels))
        y, log_jac = self.binned_spline(value, parameters, self.spline, rev)
        return (y,), log_jac

    def spline(self, x: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        """Return the elements inside their bins, and the log of the forward derivative of each."""
        return rational_quadratic_spline(x, **parameters, rev=rev)

    def output_dims(self, input_dims: Any) -> Any:
        return input_dims


def _with_ends(parameters: Parameters) -> Parameters:
    """Return constrained parameters with positive derivatives, which at both ends are those of the lines outside."""
    inner = functional.softplus(parameters["deltas"] + math.log(math.e - 1))  # zeros give the slope 1
    end = (parameters["heights"].sum(-1) / parameters["widths"].sum(-1)).unsqueeze(-1)
    return {**parameters, "deltas": torch.cat((end, inner, end), dim=-1)}


def rational_quadratic_spline(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    bottom: Tensor,
    top: Tensor,
    deltas_left: Tensor,
    deltas_right: Tensor,
    rev: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the spline inside a bin, or its inverse, and the log of the forward derivative, all of one shape.

    Arguments:
        x: Numbers in the bins, or with ``rev`` values of the spline there.
        left: Left ends of the bins.
        right: Right ends.
        bottom: Values of the spline at the left ends.
        top: Values at the right ends.
        deltas_left: Derivatives at the left ends.
        deltas_right: Derivatives at the right ends.
        rev: True for the inverse.
    """
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
