"""Base classes of splines with learned knots, and of couplings by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.errors import GraphError
from invgraph.freia.affine import require_channels
from invgraph.freia.modules.base import InvertibleModule, require_subnet
from invgraph.freia.modules.coupling_layers import _BaseCouplingBlock
from invgraph.numerics.reductions import per_sample

__all__ = ["BinnedSpline", "BinnedSplineBase"]

Parameters = dict[str, Tensor]


class BinnedSplineBase(InvertibleModule):
    """Splines whose parameters come from outside: the place, the widths and the heights of the bins.

    A subclass says where the parameters come from, and maps numbers inside the bins; outside, the spline goes on as a
    straight line from its first knot to its last.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        bins: Number of bins.
        parameter_counts: Further parameters of the spline by name, and how many of each it takes per element.
        min_bin_sizes: Smallest width and height of a bin; not used with ``identity_tails``.
        default_domain: Left, right, bottom and top of all bins together where all parameters are zero.
        identity_tails: Put the bins into a square around zero, so that the spline is the identity outside.
        domain_clamping: Bound of the width and height of all bins together. None: no bound.
    """

    bins: Tensor
    min_bin_sizes: Tensor
    default_domain: Tensor
    default_width: Tensor

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = None,
        bins: int = 10,
        parameter_counts: Mapping[str, int] | None = None,
        min_bin_sizes: Sequence[float] = (0.1, 0.1),
        default_domain: Sequence[float] = (-3.0, 3.0, -3.0, 3.0),
        identity_tails: bool = False,
        domain_clamping: float | None = None,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self._check_bins(bins, min_bin_sizes, default_domain)
        self.register_buffer("bins", torch.tensor(bins, dtype=torch.int32))
        self.register_buffer("min_bin_sizes", torch.tensor(tuple(min_bin_sizes), dtype=torch.float32))
        self.register_buffer("default_domain", torch.tensor(tuple(default_domain), dtype=torch.float32))
        self.register_buffer("identity_tails", torch.tensor(identity_tails))
        self.register_buffer("default_width", torch.tensor(float(default_domain[1] - default_domain[0])))
        self.domain_clamping = domain_clamping
        self._around_zero = identity_tails
        place = {"total_width": 1} if identity_tails else {"bottom": 1, "left": 1}
        self.parameter_counts = {"widths": bins, "heights": bins, **place, **(parameter_counts or {})}

    def _check_bins(self, bins: int, sizes: Sequence[float], domain: Sequence[float]) -> None:
        where = type(self).__name__
        left, right, bottom, top = domain
        if bins < 1:
            raise GraphError(where, f"bins={bins}", "a spline has at least one bin")
        if min(sizes) < 0:
            raise GraphError(where, f"min_bin_sizes={tuple(sizes)}", "sizes of bins can't be negative")
        if right - left <= bins * sizes[0] or top - bottom <= bins * sizes[1]:
            given = f"default_domain={tuple(domain)} for {bins} bins of min_bin_sizes={tuple(sizes)}"
            raise GraphError(where, given, "the domain (left, right, bottom, top) must be wider than all smallest bins")

    def split_parameters(self, parameters: Tensor, split_len: int) -> Parameters:
        """Return parameters of shape ``(B, C * counts, ...)`` by name, each of shape ``(B, ..., C, count)``."""
        by_element = torch.unflatten(parameters.movedim(1, -1), -1, (split_len, -1))
        counts = list(self.parameter_counts.values())
        return dict(zip(self.parameter_counts, by_element.split_with_sizes(counts, dim=-1), strict=True))

    def clamp_domain(self, domain: Tensor) -> Tensor:
        """Return widths or heights of all bins together within the bound."""
        bound = self.domain_clamping
        return domain if bound is None else bound * torch.tanh(domain / bound)

    def constrain_parameters(self, parameters: Parameters) -> Parameters:
        """Return the parameters with positive widths and heights, around the default domain."""
        if self._around_zero:
            return self._square(parameters)
        left, right, bottom, top = self.default_domain.to(parameters["left"].dtype).unbind()
        least = self.min_bin_sizes.to(left.dtype)
        result = {**parameters, "left": parameters["left"] + left, "bottom": parameters["bottom"] + bottom}
        axes = (("left", "widths", right - left, least[0]), ("bottom", "heights", top - bottom, least[1]))
        for start, name, size, smallest in axes:
            shift = torch.log(torch.expm1(size / self.parameter_counts[name] - smallest))  # zeros give equal bins
            result[name] = smallest + functional.softplus(parameters[name] + shift)
            if self.domain_clamping is not None:
                whole = result[name].sum(-1, keepdim=True)
                factor = self.clamp_domain(whole) / whole
                result[name], result[start] = result[name] * factor, result[start] * factor
        return result

    def _square(self, parameters: Parameters) -> Parameters:
        """Return the parameters of bins in a square around zero."""
        result = dict(parameters)
        grown = functional.softplus(result.pop("total_width") + math.log(math.e - 1))  # zero gives the default width
        whole = self.clamp_domain(self.default_width.to(grown.dtype) * grown)
        for start, name in _AXES.items():
            result[start] = -whole / 2
            result[name] = whole * torch.softmax(parameters[name], dim=-1)
        return result

    def binned_spline(
        self, x: Tensor, parameters: Parameters, spline: Callable[..., Any], rev: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the spline of all elements, and the log-determinant of shape ``(B,)``.

        Arguments:
            x: Data of shape ``(B, C, ...)``.
            parameters: Constrained parameters.
            spline: Function ``(x, parameters of each element's bin, rev=...)``.
            rev: True for the inverse.
        """
        x = x.movedim(1, -1)
        knots = {side: _edges(parameters[side], parameters[sizes]) for side, sizes in _AXES.items()}
        own = knots["bottom" if rev else "left"]
        first, last = own[..., 0], own[..., -1]
        inside = (x > first) & (x <= last)
        # For elements outside, the spline is evaluated at a point inside, so that no gradient becomes NaN.
        within = torch.where(inside, x, (first + last) / 2)
        lower = (torch.searchsorted(own[..., 1:-1].contiguous(), within.unsqueeze(-1).contiguous())).clamp(min=0)
        bin_parameters: Parameters = {}
        for (start, end), values in zip((("left", "right"), ("bottom", "top")), knots.values(), strict=True):
            bin_parameters[start], bin_parameters[end] = _at(values, lower), _at(values, lower + 1)
        for name, values in parameters.items():
            if name not in ("left", "bottom", "widths", "heights"):
                bin_parameters[f"{name}_left"] = _at(values, lower)
                bin_parameters[f"{name}_right"] = _at(values, lower + 1)
        mapped, log_slope = spline(within, bin_parameters, rev=rev)
        scale = parameters["heights"].sum(-1) / parameters["widths"].sum(-1)
        shift = parameters["bottom"].squeeze(-1) - scale * parameters["left"].squeeze(-1)
        y = torch.where(inside, mapped, (x - shift) / scale if rev else scale * x + shift)
        log_det = per_sample(torch.where(inside, log_slope, torch.log(scale)))
        return y.movedim(-1, 1), -log_det if rev else log_det


class BinnedSpline(_BaseCouplingBlock):
    """A coupling by splines whose parameters the subnets choose.

    A subclass writes ``_spline1`` and ``_spline2``, which map numbers inside the bins.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        split_len: Channels of the first part: a number, or a fraction.
        kwargs: Arguments of :class:`BinnedSplineBase`.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = None, subnet_constructor: Any = None, split_len: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(dims_in, dims_c or (), clamp=0.0, clamp_activation=_identity, split_len=split_len)
        self.spline_base = BinnedSplineBase(self.dims_in, self.dims_c, **kwargs)
        count = sum(self.spline_base.parameter_counts.values())
        make = require_subnet(self, subnet_constructor)
        self.subnet1 = make(self.split_len2 + self.condition_length, self.split_len1 * count)
        self.subnet2 = make(self.split_len1 + self.condition_length, self.split_len2 * count)

    def _spline1(self, x1: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        """Return the first part inside its bins, and the log of the forward derivative of each element."""
        raise NotImplementedError(f"{type(self).__name__} does not provide _spline1(x1, parameters, rev=False)")

    def _spline2(self, x2: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        """Return the second part inside its bins, and the log of the forward derivative of each element."""
        raise NotImplementedError(f"{type(self).__name__} does not provide _spline2(x2, parameters, rev=False)")

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return self._couple(x1, self.subnet1(u2), self._spline1, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        return self._couple(x2, self.subnet2(u1), self._spline2, rev)

    def _couple(self, x: Tensor, raw: Tensor, spline: Callable[..., Any], rev: bool) -> tuple[Tensor, Tensor]:
        base = self.spline_base
        require_channels(raw, x.shape[1] * sum(base.parameter_counts.values()), type(self).__name__)
        parameters = self.constrain_parameters(base.split_parameters(raw.to(x.dtype), x.shape[1]))
        return base.binned_spline(x, parameters, spline, rev)

    def constrain_parameters(self, parameters: Parameters) -> Parameters:
        """Return the parameters with positive widths and heights."""
        return self.spline_base.constrain_parameters(parameters)


def _identity(u: Tensor) -> Tensor:
    return u


_AXES = {"left": "widths", "bottom": "heights"}


def _edges(start: Tensor, sizes: Tensor) -> Tensor:
    """Return the knots from the first one and the sizes of the bins."""
    return torch.cat((start, start + sizes.cumsum(-1)), dim=-1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index).squeeze(-1)
