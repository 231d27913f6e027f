"""The inverse of an increasing function that has none in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Value and log slope, element by element; also for a leading axis of several points for each element."""

_ROUNDS = 8
_POINTS = 7  # each round finds three bits: a third of the steps to unroll and compile, at twice the sums of bisection
_POLISH = 4
_LEAST_LOG_SLOPE = -60.0  # its exponential's inverse is still finite in float32 and bfloat16


def solve_increasing(function: Increasing, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where the function takes the value ``target``, to the rounding of the dtype, known to lie in [low, high].

    Cutting the bracket in eight finds the place, whatever the function does in between, and Newton's steps, kept inside
    it, the digits. A fixed number of each: nothing branches on data.

    The root is found without a graph, and two steps of Newton's with one are taken from there. By the implicit function
    theorem the first one carries the first derivatives of the root with respect to the target and to whatever the
    function depends on, the second one the second (and third) ones.
    """
    with torch.no_grad():
        low, high, goal = low.detach(), high.detach(), target.detach()
        numbers = torch.arange(1, _POINTS + 1, dtype=low.dtype, device=low.device)
        places = numbers.view(-1, *(1 for _ in low.shape))
        for _ in range(_ROUNDS):
            width = (high - low) / (_POINTS + 1)
            passed = (function(low + width * places)[0] < goal).sum(0)
            low = low + width * passed
            high = low + width
        root = low + (high - low) / 2
        for _ in range(_POLISH):
            root = torch.clamp(_newton(function, root, goal), low, high)
    return _newton(function, _newton(function, root, target), target)


def _newton(function: Increasing, x: Tensor, target: Tensor) -> Tensor:
    value, log_slope = function(x)
    return x - (value - target) * torch.exp(-log_slope.clamp(min=_LEAST_LOG_SLOPE))
