"""Conditions of a layer, or the values that were computed from them beforehand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Precomputed(tuple[Any, ...]):
    """Result of :meth:`~invgraph.Invertible.precompute`; a bound graph passes it in place of the conditions."""

    __slots__ = ()


def pick(given: Any, index: int) -> Any:
    """Return one part of what was precomputed; conditions are handed on whole."""
    return given[index] if isinstance(given, Precomputed) else given


def add_rows(h: Tensor, addend: Tensor, *, in_place: bool = False) -> Tensor:
    """Return ``h + addend``, where each row of the addend serves several samples; it is broadcast, never repeated.

    Arguments:
        h: Values of shape ``(n * B, ...)``, sample by sample.
        addend: Values of shape ``(B, ...)``, or one row.
        in_place: True if ``h`` is the caller's to overwrite.
    """
    samples = h if addend.shape[0] in (1, h.shape[0]) else torch.unflatten(h, 0, (-1, addend.shape[0]))
    total = samples.add_(addend) if in_place and h.dtype == addend.dtype else samples + addend
    return total if samples is h else total.flatten(0, 1)
