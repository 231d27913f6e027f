"""A coupling by piecewise linear splines."""

from __future__ import annotations

import torch
from torch import Tensor

from invgraph.freia.modules.splines.binned import BinnedSpline, Parameters

__all__ = ["LinearSpline"]


class LinearSpline(BinnedSpline):
    """A coupling by straight lines between knots that the subnets choose.

    Its arguments are those of :class:`BinnedSpline`.
    """

    def _spline1(self, x1: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _linear(x1, **parameters, rev=rev)

    def _spline2(self, x2: Tensor, parameters: Parameters, rev: bool = False) -> tuple[Tensor, Tensor]:
        return _linear(x2, **parameters, rev=rev)


def _linear(
    x: Tensor, left: Tensor, right: Tensor, bottom: Tensor, top: Tensor, rev: bool = False
) -> tuple[Tensor, Tensor]:
    slope = (top - bottom) / (right - left)
    y = left + (x - bottom) / slope if rev else bottom + slope * (x - left)
    return y, torch.log(slope)
