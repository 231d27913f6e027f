"""The affine transform alone as one step of the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invgraph.fused.affine_coupling import evaluate_affine
from invgraph.fused.affine_coupling_gradient import affine_backward
from invgraph.fused.dispatch import differentiate, is_first_order, needs_grad
from invgraph.fused.plan import AffineKernel


def transform(kernel: AffineKernel, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """Return result and log-determinant per sample.

    Arguments:
        kernel: The transform.
        x: ``(B, ...)``.
        params: ``(B, 2, ...)``.
    """
    if needs_grad(x, params):
        return _Affine.apply(kernel, x, params)  # type: ignore[no-untyped-call, no-any-return]
    return evaluate_affine(kernel, x, params)[:2]


class _Affine(torch.autograd.Function):
    """Five passes over memory on the way back, where autograd takes fifteen."""

    @staticmethod
    def forward(ctx: Any, kernel: AffineKernel, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, scales = evaluate_affine(kernel, x, params)
        ctx.kernel = kernel
        ctx.save_for_backward(x, params, y if kernel.inverse else None, *scales)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, params, y, *scales = ctx.saved_tensors
        if is_first_order(*grads):
            return None, *affine_backward(ctx.kernel, x, params.select(1, 0), y, scales, (grads[0], grads[1]))
        return None, *differentiate(ctx.kernel.formula, (x, params), grads)
