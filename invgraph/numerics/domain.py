"""Domains of transforms: values outside them, and the explicit check."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invgraph.errors import NumericsError

_SHOWN = 5


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


def beside(end: Tensor, inwards: int) -> Tensor:
    """Return the number next to the end of an interval: above it if ``inwards`` is 1, below it if it is -1."""
    limits = torch.finfo(end.dtype)
    return end + inwards * (end.abs() * limits.eps).clamp_min(limits.tiny)


def zero_density(log_det: Tensor, outside: Tensor) -> Tensor:
    """Return the log-determinants, with minus infinity for samples that have an element outside the domain.

    Arguments:
        log_det: Log-determinants, shape ``(B,)``.
        outside: True for elements outside the domain, shape ``(B, ...)``.
    """
    return log_det.masked_fill(outside.flatten(1).any(1), -math.inf)


def require_integers(name: str, x: Tensor, levels: int) -> None:
    """Raise NumericsError for values other than 0, 1, ..., levels - 1; NaN passes."""
    wrong = ((x != x.floor()) | (x < 0) | (x > levels - 1)) & ~x.isnan()
    if bool(wrong.any()):
        values = x.detach()[wrong]
        shown = ", ".join(f"{value:g}" for value in values[:_SHOWN].tolist())
        given = f"{len(values)} of {x.numel()} values are not integers from 0 to {levels - 1}: {shown}"
        given += ", ..." if len(values) > _SHOWN else ""
        advice = f"give integers in a floating-point dtype; pixels in [0, 1] as (x * {levels - 1}).round()"
        raise NumericsError(name, given, advice)
