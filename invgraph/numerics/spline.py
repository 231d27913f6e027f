"""The equation that inverts a piece of a rational quadratic spline."""

from __future__ import annotations

import torch
from torch import Tensor


def solve(ratio: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    """Return theta at this fraction of the height of a piece.

    This is the quadratic formula with its discriminant as a sum of two squares and its denominator as a sum of positive
    terms, so that neither cancels for any slopes.
    """
    m = torch.addcmul(d0, ratio, d0 + d1, value=-1)
    twice = 2 * s * ratio
    q = 2 * s * twice * (1 - ratio)
    root = torch.sqrt(torch.addcmul(q, m, m))
    rest = torch.where(m >= 0, root + m, q / (root + m.abs()))
    return twice / (twice + rest)
