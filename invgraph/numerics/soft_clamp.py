"""Soft clamps, which bound log scales so that their exponentials stay moderate (paper, Eq. 7)."""

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
# Empty except while `diagnose` measures a node.
_watchers: list[Callable[[Tensor, float], None]] = []


def require_clamp(where: str, clamp: object, activation: object) -> float:
    """Return a clamp that is a positive, finite number; refuse an activation that does not exist."""
    require_choice(where, "activation", activation, get_args(Activation))
    return require_positive(where, "clamp", clamp)


def soft_clamp(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    """Bound ``s`` smoothly to (-alpha, alpha)."""
    if alpha != 1:
        s = s / alpha
    if activation == "atan":
        clamped = torch.atan(s).mul_(2 * alpha / math.pi)
    elif activation == "tanh":
        clamped = torch.tanh(s)
        clamped = clamped if alpha == 1 else clamped * alpha
    else:
        clamped = (2 * torch.sigmoid(s) - 1) * alpha
    for watcher in _watchers:
        watcher(clamped, alpha)
    return clamped


def soft_clamp_scaled(s: Tensor, factor: float, alpha: float, activation: Activation) -> Tensor:
    """Return the soft clamp of ``factor * s`` in a single new tensor; not recorded by autograd."""
    clamped = torch.mul(s, factor / alpha)
    if activation == "atan":
        clamped.atan_().mul_(alpha / (math.pi / 2))
    elif activation == "tanh":
        clamped.tanh_().mul_(alpha)
    else:
        clamped.sigmoid_().mul_(2 * alpha).sub_(alpha)
    for watcher in _watchers:
        watcher(clamped, alpha)
    return clamped


def soft_clamp_backward(
    grad_output: Tensor, s: Tensor, clamped: Tensor, alpha: float, activation: Activation, out: Tensor | None = None
) -> Tensor:
    """Return the gradient with respect to ``s`` from that with respect to its soft clamp ``clamped``."""
    if activation == "atan":
        half = math.pi / 2
        return torch.div(grad_output, torch.addcmul(s.new_full((), half), s, s, value=half / alpha**2), out=out)
    ratio = clamped if alpha == 1 else clamped / alpha
    slope = 1.0 if activation == "tanh" else 0.5  # at s = 0
    return torch.mul(grad_output, torch.addcmul(s.new_full((), slope), ratio, ratio, value=-slope), out=out)


@contextmanager
def watch_clamps(watcher: Callable[[Tensor, float], None]) -> Iterator[None]:
    """Within the context, call the watcher with each result of :func:`soft_clamp` in this thread, and its bound."""
    own = threading.get_ident()

    def here(clamped: Tensor, alpha: float) -> None:
        if threading.get_ident() == own:
            watcher(clamped, alpha)

    _watchers.append(here)
    try:
        yield
    finally:
        _watchers.remove(here)
