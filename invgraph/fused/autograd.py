"""Helpers that all hand-derived gradients share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invgraph.torch_internals import is_batched_grad, is_eager


def needs_grad(*values: Tensor) -> bool:
    """True if autograd records what is done to these values."""
    if torch.is_grad_enabled():
        for value in values:
            if value.requires_grad:
                return True
    return False


def is_first_order(*grads: Tensor) -> bool:
    """True if these gradients belong to a single backward pass, so that they may be overwritten.

    They do not if they will be differentiated in turn, or if autograd asks for several at once (``is_grads_batched``).
    """
    return is_eager() and not torch.is_grad_enabled() and not any(map(is_batched_grad, grads))


def differentiate(
    function: Callable[..., Sequence[Tensor]], values: Sequence[Tensor], grad_outputs: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a function's arguments by autograd, to any order; None for those that need none."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # One value may have been made of another: only the function's own dependence on each counts.
        own = [value.view_as(value) for value in values]
        wanted = [value for value in own if value.requires_grad]
        # Nor does each output depend on one that is wanted: the log-determinant of a shift is a constant.
        pairs = [pair for pair in zip(function(*own), grad_outputs, strict=True) if pair[0].requires_grad]
        outputs, given = [output for output, _ in pairs], [grad for _, grad in pairs]
        grads = iter(torch.autograd.grad(outputs, wanted, given, create_graph=create_graph, allow_unused=True))
    return tuple(next(grads) if value.requires_grad else None for value in own)
