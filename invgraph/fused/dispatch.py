"""What a function may do by hand: a backward pass in place of autograd's, arithmetic in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

PLAIN = (Tensor, nn.Parameter)
"""The types of tensors that are like any other: subclasses, such as distributed ones, know fewer operations."""


def eager() -> bool:
    """Whether operations run as they are written.

    ``torch.compile`` and ``torch.export`` trace plain operations better, and ``torch.func`` and forward-mode
    differentiation map and differentiate them to any order: for these, write them plainly.
    """
    # Torch has no public words for the last two; the second is what its own Function asks before every call.
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def recorded(*values: Tensor) -> bool:
    """Whether autograd records what is done to these values."""
    return torch.is_grad_enabled() and any(value.requires_grad for value in values)


def plain(x: Tensor) -> bool:
    """Whether this is a tensor like any other, and no operation on it will be done in another precision."""
    device = x.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return type(x) in PLAIN and not cast


def alone(*slopes: Tensor) -> bool:
    """Whether these gradients belong to one backward pass, so that others may be made of them in place.

    They do not where they will be differentiated in turn, nor where autograd asks for several at once
    (``is_grads_batched``).
    """
    batched = torch._C._functorch.is_legacy_batchedtensor
    return eager() and not torch.is_grad_enabled() and not any(batched(slope) for slope in slopes)


def derived(
    function: Callable[..., Sequence[Tensor]], values: Sequence[Tensor], slopes: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of a function's arguments by autograd, for slopes that are not :func:`alone`; None where not wanted."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # One value may have been made of another: what is wanted is the function's own slope in each.
        own = [value.view_as(value) for value in values]
        wanted = [value for value in own if value.requires_grad]
        found = iter(torch.autograd.grad(function(*own), wanted, slopes, create_graph=again, allow_unused=True))
    return tuple(next(found) if value.requires_grad else None for value in own)
