"""Inverses of increasing functions that have none in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Elementwise function that returns value and log slope; it also accepts a leading axis of several points."""

_ROUNDS = 8
_POINTS = 7  # each round finds three bits: a third of the steps of bisection to compile, at twice the arithmetic
_POLISH = 4
_LEAST_LOG_SLOPE = -60.0  # exp(60) is still finite in float32 and bfloat16


def solve_increasing(function: Increasing, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the root of ``function(x) = target`` in [low, high], to the precision of the dtype.

    The bracket is divided in eight a fixed number of times, which works for any increasing function; a fixed number of
    Newton steps, clamped to the bracket, then gives the remaining digits. Nothing branches on data.

    The root is found without gradient; two more Newton steps are recorded by autograd. By the implicit function
    theorem, the first one carries the first derivatives of the root with respect to the target and everything the
    function depends on, and the second one the second and third derivatives.

    Arguments:
        function: Increasing function.
        target: Values of the function.
        low: Lower bounds of the roots.
        high: Upper bounds of the roots.
    """
    with torch.no_grad():
        low, high, goal = low.detach(), high.detach(), target.detach()
        steps = torch.arange(1, _POINTS + 1, dtype=low.dtype, device=low.device)
        points = steps.view(-1, *(1 for _ in low.shape))
        for _ in range(_ROUNDS):
            width = (high - low) / (_POINTS + 1)
            below = (function(low + width * points)[0] < goal).sum(0)
            low = low + width * below
            high = low + width
        root = low + (high - low) / 2
        for _ in range(_POLISH):
            root = torch.clamp(_newton(function, root, goal), low, high)
    return _newton(function, _newton(function, root, target), target)


def _newton(function: Increasing, x: Tensor, target: Tensor) -> Tensor:
    value, log_slope = function(x)
    return x - (value - target) * torch.exp(-log_slope.clamp(min=_LEAST_LOG_SLOPE))
