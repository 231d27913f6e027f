"""Soft clamps, which bound log scales so that their exponentials stay moderate (paper, Eq. 7)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from invgraph.arguments import require_choice, require_positive

Activation = Literal["atan", "tanh", "sigmoid"]
clamp_watchers: list[Callable[[Tensor, float], None]] = []
"""Called with each result of a soft clamp and its bound; empty except while ``diagnose`` measures a node."""


class Squash(NamedTuple):
    """A soft clamp by its steps, ``outer * function(inner * s)``."""

    function: Callable[..., Tensor]
    inner: float
    outer: float


def require_clamp(where: str, clamp: object, activation: object) -> float:
    """Return a clamp that is a positive, finite number; refuse an activation that does not exist."""
    require_choice(where, "activation", activation, get_args(Activation))
    return require_positive(where, "clamp", clamp)


def squash(alpha: float, activation: Activation) -> Squash:
    """Return the steps of a soft clamp to (-alpha, alpha); the sigmoid's, from -1 to 1, is a tanh of half its slope."""
    if activation == "atan":
        return Squash(torch.atan, 1 / alpha, 2 * alpha / math.pi)
    return Squash(torch.tanh, (1.0 if activation == "tanh" else 0.5) / alpha, alpha)


def soft_clamp(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    """Bound ``s`` smoothly to (-alpha, alpha)."""
    function, inner, outer = squash(alpha, activation)
    clamped = function(s if inner == 1 else s * inner)
    if outer != 1:
        # Only tanh's gradient needs what it returned.
        clamped = clamped * outer if function is torch.tanh else clamped.mul_(outer)
    for watch in clamp_watchers:
        watch(clamped, alpha)
    return clamped


def soft_clamp_scaled(s: Tensor, factor: float, alpha: float, activation: Activation, out: Tensor) -> Tensor:
    """Write the soft clamp of ``factor * s`` to ``out``; not recorded by autograd, and not shown to watchers."""
    function, inner, outer = squash(alpha, activation)
    torch.mul(s, factor * inner, out=out)
    clamped: Tensor = function(out, out=out)
    return clamped.mul_(outer)


@contextmanager
def watch_clamps(watcher: Callable[[Tensor, float], None]) -> Iterator[None]:
    """Within the context, call the watcher with each result of :func:`soft_clamp` in this thread, and its bound."""
    own = threading.get_ident()

    def here(clamped: Tensor, alpha: float) -> None:
        # Another thread may compile meanwhile, and the compiler can't trace the question which thread it is.
        if not torch.compiler.is_compiling() and threading.get_ident() == own:
            watcher(clamped, alpha)

    clamp_watchers.append(here)
    try:
        yield
    finally:
        clamp_watchers.remove(here)
