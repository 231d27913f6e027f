"""A fixed order of channels, whose gradient is gathered by the inverse order instead of scattered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invgraph.fused.dispatch import is_eager, needs_grad


def gather_channels(x: Tensor, order: Tensor, inverse_order: Tensor) -> Tensor:
    """Return ``x[:, order]``; a gather takes half the time of the scatter that autograd would do."""
    if is_eager() and needs_grad(x):
        return _Gather.apply(x, order, inverse_order)  # type: ignore[no-untyped-call, no-any-return]
    return x.index_select(1, order)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse_order: Tensor) -> Tensor:
        ctx.orders = order, inverse_order
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse_order = ctx.orders
        return gather_channels(grad, inverse_order, order), None, None
