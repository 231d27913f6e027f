"""Soft clamps: what keeps the exponential of a scale from exploding (paper, Eq. 7)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from invgraph.arguments import is_one_of
from invgraph.errors import ArgumentError, GraphError

Activation = Literal["atan", "tanh", "sigmoid"]
# Empty but for the moments in which `diagnose` looks at a node.
_watchers: list[Callable[[Tensor, float], None]] = []


def require_clamp(where: str, clamp: object, activation: object) -> None:
    """Refuse a clamp that is not a finite positive number, and an activation that does not exist."""
    if isinstance(clamp, bool) or not isinstance(clamp, (int, float)):
        raise ArgumentError(where, f"clamp={clamp!r}", "clamp must be a number")
    if not (math.isfinite(clamp) and clamp > 0):
        raise GraphError(where, f"clamp={clamp}", "clamp must be positive and finite: |log scale| stays below it")
    if not is_one_of(activation, get_args(Activation)):
        names = ", ".join(repr(name) for name in get_args(Activation))
        raise GraphError(where, f"activation={activation!r}", f"activation must be one of {names}")


def soft_clamp(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    """The numbers of ``s``, bent so that they stay within (-alpha, alpha)."""
    if alpha != 1:
        s = s / alpha
    if activation == "atan":
        bent = torch.atan(s).mul_(2 * alpha / math.pi)
    elif activation == "tanh":
        bent = torch.tanh(s)
        bent = bent if alpha == 1 else bent * alpha
    else:
        bent = (2 * torch.sigmoid(s) - 1) * alpha
    for watcher in _watchers:
        watcher(bent, alpha)
    return bent


def soft_clamp_backward(
    slopes: Tensor, s: Tensor, bent: Tensor, alpha: float, activation: Activation, out: Tensor | None = None
) -> Tensor:
    """Gradients with respect to ``s``, from those with respect to ``bent``, its soft clamp."""
    if activation == "atan":
        half = math.pi / 2
        return torch.div(slopes, torch.addcmul(s.new_full((), half), s, s, value=half / alpha**2), out=out)
    share = bent if alpha == 1 else bent / alpha
    steepness = 1.0 if activation == "tanh" else 0.5
    return torch.mul(slopes, torch.addcmul(s.new_full((), steepness), share, share, value=-steepness), out=out)


@contextmanager
def watch_clamps(watcher: Callable[[Tensor, float], None]) -> Iterator[None]:
    """Show the watcher every result of :func:`soft_clamp` with its bound, in this thread, while the context lasts."""
    own = threading.get_ident()

    def here(bent: Tensor, alpha: float) -> None:
        if threading.get_ident() == own:
            watcher(bent, alpha)

    _watchers.append(here)
    try:
        yield
    finally:
        _watchers.remove(here)
