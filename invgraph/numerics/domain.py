"""Explicit check of the domain of a transform."""

from __future__ import annotations

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
