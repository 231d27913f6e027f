"""The switch of the hand-derived kernels. No result depends on them."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar

from invgraph.errors import ArgumentError


class fused:  # noqa: N801  a switch that is called like a function, as torch.no_grad is
    """Turn the hand-derived kernels on or off, for the process or for a ``with`` block.

    They change the speed and the memory of layers, never their results. Turn them off to step through the readable code
    of a layer, or to find out whether a kernel is to blame.

    Arguments:
        enabled: False to turn them off.

    Attributes:
        enabled: True unless they are turned off; an attribute of the class.

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> with ig.fused(False):
        ...     (y,), log_det = layer((torch.ones(2, 4),))
    """

    # Layers ask is_plain or is_eager first: compiled code is guarded by what it reads.
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
