"""Scale and shift per channel, with a gradient that reads the result, which the next layer keeps as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invgraph.fused.autograd import is_first_order, needs_grad


def scale_and_shift(x: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``x exp(log_scale) + shift``; both have one number per channel, and axes of size one."""
    if needs_grad(x, log_scale, shift):
        return _ScaleAndShift.apply(x, log_scale, shift)  # type: ignore[no-untyped-call, no-any-return]
    return _evaluate(x, log_scale, shift)


def shift_and_scale_back(y: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``(y - shift) exp(-log_scale)``, the inverse."""
    x, scale = y - shift, torch.exp(-log_scale)
    return x * scale if needs_grad(x, scale) else x.mul_(scale)  # for its gradient, autograd would copy x


def _evaluate(x: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    return (x * log_scale.exp()).add_(shift)  # addcmul takes twice as long where it broadcasts


class _ScaleAndShift(torch.autograd.Function):
    """The product of ``x`` and the scale is the result less the shift, so ``x`` need not be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
        y = _evaluate(x, log_scale, shift)
        ctx.save_for_backward(y, log_scale, shift)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gradients; in operations that autograd differentiates, because the result is its own function."""
        y, log_scale, shift = ctx.saved_tensors
        axes = (0, *range(2, y.ndim))
        shift_grad = grad.sum(axes).view_as(shift)
        product = (y - shift).mul_(grad)  # not sums less the shift, which may be larger by far
        scale_grad = product.sum(axes).view_as(shift)
        if not ctx.needs_input_grad[0]:
            return None, scale_grad, shift_grad
        room = product if is_first_order(grad) else None
        return torch.mul(grad, log_scale.exp(), out=room), scale_grad, shift_grad
