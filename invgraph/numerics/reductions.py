"""Sums over everything but the batch."""

from __future__ import annotations

from torch import Tensor


def per_sample(terms: Tensor) -> Tensor:
    """Return the sum over everything but the batch, shape ``(B,)``."""
    return terms.sum(1) if terms.ndim == 2 else terms.flatten(1).sum(1)
