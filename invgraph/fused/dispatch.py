"""Conditions for hand-derived gradients and in-place arithmetic in place of plain operations, and the switch.

Nothing in the library depends on this folder's kernels: with ``ig.fused(False)`` everything gives the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from invgraph.errors import ArgumentError
from invgraph.torch_internals import is_batched_grad, is_transformed

PLAIN = (Tensor, nn.Parameter)
"""The tensor types without overrides: subclasses, such as distributed or quantised ones, know fewer operations."""

_enabled = True
is_jit_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]


class fused:  # noqa: N801  a switch that is called like a function, as torch.no_grad is
    """Turn the hand-derived kernels on or off, for the process or for a ``with`` block.

    They change the speed and the memory of couplings and convolutions, never the results. Turn them off
    to step through the readable code of a layer, or to find out whether a kernel is to blame.

    Arguments:
        enabled: False to turn them off.

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> with ig.fused(False):
        ...     (y,), log_det = layer((torch.ones(2, 4),))
    """

    def __init__(self, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise ArgumentError("fused", f"enabled: {type(enabled).__name__}", "enabled must be True or False")
        self._before = is_enabled()
        _set(enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(self._before)


def _set(enabled: bool) -> None:
    global _enabled
    _enabled = enabled


def is_enabled() -> bool:
    """True unless :class:`fused` has turned the kernels off."""
    return _enabled


def is_eager() -> bool:
    """True if kernels may be used: operations run as they are written.

    ``torch.compile`` and ``torch.export`` trace plain operations better, ``torch.jit.trace`` traces nothing else, and
    ``torch.func`` and forward-mode differentiation map and differentiate them to any order.
    """
    # First what ends it while code is compiled: whatever is read before is guarded, in every compiled layer.
    return not torch.compiler.is_compiling() and _enabled and not (is_jit_tracing() or is_transformed())


def needs_grad(*values: Tensor) -> bool:
    """True if autograd records what is done to these values."""
    if torch.is_grad_enabled():
        for value in values:
            if value.requires_grad:
                return True
    return False


def is_usable_for(x: Tensor) -> bool:
    """True if kernels may be used for a tensor: it has no overrides, and no operation is done in another precision."""
    if not is_eager() or type(x) not in PLAIN:
        return False
    device = x.device.type
    return not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))


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
