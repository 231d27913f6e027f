"""Soft clamps: what keeps the exponential of a scale from exploding (paper, Eq. 7)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from invgraph.arguments import require_choice, require_positive

Activation = Literal["atan", "tanh", "sigmoid"]
# Empty but for the moments in which `diagnose` looks at a node.
_watchers: list[Callable[[Tensor, float], None]] = []


def require_clamp(where: str, clamp: object, activation: object) -> float:
    """Return a clamp that is a positive, finite number; refuse an activation that does not exist."""
    require_choice(where, "activation", activation, get_args(Activation))
    return require_positive(where, "clamp", clamp)


def soft_clamp(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    """The numbers of ``s``, bent so that they stay within (-alpha, alpha)."""
    if activation == "atan":
        bent = torch.atan(_divided(s, alpha)).mul_(2 * alpha / math.pi)
    elif activation == "tanh":
        bent = torch.tanh(_divided(s, alpha))
        bent = bent if alpha == 1 else bent * alpha
    else:
        bent = (2 * torch.sigmoid(_divided(s, alpha)) - 1) * alpha
    for watcher in _watchers:
        watcher(bent, alpha)
    return bent


def _divided(s: Tensor, alpha: float) -> Tensor:
    return s if alpha == 1 else s / alpha


def through_clamp(
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
