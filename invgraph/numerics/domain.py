"""Domains of transforms: values outside them, and the explicit check."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invgraph.errors import NumericsError


def require_domain(name: str, x: Tensor, low: float, high: float) -> None:
    """Raise NumericsError for values outside the open interval; NaN passes.

    The check depends on the data, so transforms run it only on request (``check_domain=True``).
    """
    if bool(((x <= low) | (x >= high)).any()):
        finite = x[~x.isnan()]
        least, most = torch.aminmax(finite)
        ends = [f"min {least:g}"] if least <= low else []
        ends += [f"max {most:g}"] if most >= high else []
        given = f"values outside the domain of '{name}': {', '.join(ends)}"
        raise NumericsError(name, given, f"values must lie strictly between {low:g} and {high:g}")


def into_open_interval(x: Tensor) -> Tensor:
    """Clamp values to the floating-point numbers strictly between 0 and 1; NaN stays NaN."""
    limits = torch.finfo(x.dtype)
    return x.clamp(limits.tiny, 1 - limits.eps / 2)


def zero_density(log_det: Tensor, outside: Tensor) -> Tensor:
    """Return the log-determinants, with minus infinity for samples that have an element outside the domain.

    Arguments:
        log_det: Log-determinants, shape ``(B,)``.
        outside: True for elements outside the domain, shape ``(B, ...)``.
    """
    return log_det.masked_fill(outside.flatten(1).any(1), -math.inf)
