"""The switch of the hand-derived kernels, and what their gradients have in common.

Nothing in the library depends on this folder's kernels: with ``ig.fused(False)`` everything gives the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar

import torch
from torch import Tensor

from invgraph.errors import ArgumentError
from invgraph.torch_internals import is_batched_grad, is_eager


class fused:  # noqa: N801  a switch that is called like a function, as torch.no_grad is
    """Turn the hand-derived kernels on or off, for the process or for a ``with`` block.

    They change the speed and the memory of couplings and convolutions, never the results. Turn them off
    to step through the readable code of a layer, or to find out whether a kernel is to blame.

    Arguments:
        enabled: False to turn them off.

    Attributes:
        enabled: True unless they are turned off; an attribute of the class. Ask
            :func:`~invgraph.torch_internals.is_plain` or ``is_eager`` first: compiled code is guarded by what it reads.

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> with ig.fused(False):
        ...     (y,), log_det = layer((torch.ones(2, 4),))
    """

    enabled: ClassVar[bool] = True

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise ArgumentError("fused", f"enabled: {type(enabled).__name__}", "enabled must be True or False")
        self._before = fused.enabled
        fused.enabled = enabled

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fused.enabled = self._before


def needs_grad(*values: Tensor) -> bool:
    """True if autograd records what is done to these values."""
    if torch.is_grad_enabled():
        for value in values:
            if value.requires_grad:
                return True
    return False


def is_first_order(*grads: Tensor) -> bool:
    """True if these gradients belong to one backward pass, so that others may be made of them in place.

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
        outputs = function(*own)
        grads = iter(torch.autograd.grad(outputs, wanted, grad_outputs, create_graph=create_graph, allow_unused=True))
    return tuple(next(grads) if value.requires_grad else None for value in own)
