"""What a function may do by hand: a backward pass in place of autograd's, arithmetic in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


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


def alone(*slopes: Tensor) -> bool:
    """Whether these gradients belong to one backward pass, so that others may be made of them in place.

    They do not where they will be differentiated in turn, nor where autograd asks for several at once
    (``is_grads_batched``).
    """
    batched = torch._C._functorch.is_legacy_batchedtensor
    return eager() and not torch.is_grad_enabled() and not any(batched(slope) for slope in slopes)
