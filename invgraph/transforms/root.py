"""The inverse of an increasing function that has none in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Value and log slope, element by element."""

_BISECTIONS = 30
_POLISH = 4
_LEAST_LOG_SLOPE = -60.0  # its exponential's inverse is still finite in float32 and bfloat16


def solve_increasing(function: Increasing, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where the function takes the value ``target``, to the rounding of the dtype, known to lie in [low, high].

    Bisection finds the place, whatever the function does in between, and Newton's steps, kept inside the bracket, the
    digits. A fixed number of each: nothing branches on data.

    The root is found without a graph, and two steps of Newton's with one are taken from there. By the implicit function
    theorem the first one carries the first derivatives of the root with respect to the target and to whatever the
    function depends on, the second one the second (and third) ones.
    """
    with torch.no_grad():
        low, high, goal = low.detach(), high.detach(), target.detach()
        for _ in range(_BISECTIONS):
            middle = low + (high - low) / 2
            below = function(middle)[0] < goal
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        root = low + (high - low) / 2
        for _ in range(_POLISH):
            root = torch.clamp(_newton(function, root, goal), low, high)
    return _newton(function, _newton(function, root, target), target)


def _newton(function: Increasing, x: Tensor, target: Tensor) -> Tensor:
    value, log_slope = function(x)
    return x - (value - target) * torch.exp(-log_slope.clamp(min=_LEAST_LOG_SLOPE))
