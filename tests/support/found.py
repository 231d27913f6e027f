"""Findings of a call: values, and gradients of a loss that weighs every number differently; and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Found = dict[str, list[Tensor]]


def weighed(outputs: Sequence[Tensor]) -> Tensor:
    """A loss that weighs every number of the outputs differently."""
    parts = [
        (y.flatten() * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype, device=y.device)).square().sum()
        for y in outputs
    ]
    return torch.stack(parts).sum()


def found(call: Callable[[Any, Any], Any], leaves: Any, parameters: Sequence[Tensor], gradients: bool) -> Found:
    """Values, and gradients of the loss."""
    xs, cs = leaves
    ys, log_det = call(xs, cs)
    outputs = [*ys, log_det]
    result = {"values": [y.detach() for y in outputs]}
    if gradients:
        wanted = [p for p in parameters if p.requires_grad]
        grads = torch.autograd.grad(weighed(outputs), (*xs, *cs, *wanted), allow_unused=True)
        filled = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, (*xs, *cs, *wanted), strict=True)]
        result["data gradients"] = filled[: len(xs) + len(cs)]
        result["parameter gradients"] = filled[len(xs) + len(cs) :]
    return result


def compare(got: Found, expected: Found, what: str, tolerance: float = 1e-9) -> None:
    """Assert that two calls found the same: all that the first one has."""
    for key in got:
        assert [t.shape for t in got[key]] == [t.shape for t in expected[key]], f"{what}, {key}"
        one, other = (torch.cat([t.flatten() for t in ts[key]]) for ts in (got, expected))
        gap = ((one - other).abs() / other.abs().clamp(min=1)).max()
        assert gap <= tolerance, f"{what}, {key}: they differ by {gap}"
