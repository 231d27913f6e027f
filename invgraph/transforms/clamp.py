"""Soft clamps: what keeps the exponential of a scale from exploding (paper, Eq. 7)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from invgraph.errors import ArgumentError, GraphError

Activation = Literal["atan", "tanh", "sigmoid"]


def require_clamp(where: str, clamp: object, activation: object) -> None:
    """Refuse a clamp that is not a finite positive number, and an activation that does not exist."""
    if isinstance(clamp, bool) or not isinstance(clamp, (int, float)):
        raise ArgumentError(where, f"clamp={clamp!r}", "clamp must be a number")
    if not (math.isfinite(clamp) and clamp > 0):
        raise GraphError(where, f"clamp={clamp}", "clamp must be positive and finite: |log scale| stays below it")
    if activation not in get_args(Activation):
        names = ", ".join(repr(name) for name in get_args(Activation))
        raise GraphError(where, f"activation={activation!r}", f"activation must be one of {names}")


def soft_clamp(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    """The numbers of ``s``, bent so that they stay within (-alpha, alpha)."""
    scaled = s if alpha == 1 else s / alpha
    if activation == "atan":
        return torch.atan(scaled) * (2 * alpha / math.pi)
    if activation == "tanh":
        bent = torch.tanh(scaled)
        return bent if alpha == 1 else bent * alpha
    return (2 * torch.sigmoid(scaled) - 1) * alpha
