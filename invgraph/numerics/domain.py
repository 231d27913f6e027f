"""The explicit check of a transform's domain."""

from __future__ import annotations

import torch
from torch import Tensor

from invgraph.errors import NumericsError


def require_domain(name: str, x: Tensor, low: float, high: float) -> None:
    """Refuse numbers outside the open interval; NaN is no number, and passes.

    This looks at the data: transforms call it only where they were asked to (``check_domain=True``).
    """
    if bool(((x <= low) | (x >= high)).any()):
        finite = x[~x.isnan()]
        least, most = torch.aminmax(finite)
        ends = [f"min {least:g}"] if least <= low else []
        ends += [f"max {most:g}"] if most >= high else []
        given = f"numbers outside the domain of '{name}': {', '.join(ends)}"
        raise NumericsError(name, given, f"it takes numbers between {low:g} and {high:g}, without these two")
