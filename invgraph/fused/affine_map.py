"""An affine map alone, as one autograd function that keeps neither its parameters nor, forward, its result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invgraph.fused.affine import evaluate_affine
from invgraph.fused.affine_gradient import affine_backward, soft_clamp_backward
from invgraph.fused.autograd import is_first_order, needs_grad
from invgraph.fused.descriptions import AffineMap, Scales


def map_affinely(transform: AffineMap, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """Return output and log-determinant per sample.

    Arguments:
        transform: The map.
        x: ``(B, ...)``.
        params: ``(B, 2, ...)``.
    """
    if needs_grad(x, params):
        return _Affine.apply(transform, x, params)[:2]  # type: ignore[no-untyped-call, no-any-return]
    return evaluate_affine(transform, x, *params.unbind(1))[:2]


class _Affine(torch.autograd.Function):
    """Five passes over memory in the backward pass, where autograd takes fifteen.

    No gradient reads the shifts, so the parameters are not kept. What stands for the log scales instead, before an atan
    and after any other clamp, is a third result, because autograd differentiates the gradients only with respect to
    arguments and results.
    """

    @staticmethod
    def forward(ctx: Any, transform: AffineMap, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw, t = params.unbind(1)
        ratio = torch.empty_like(raw) if transform.activation == "atan" else None
        y, log_det, (scale, s) = evaluate_affine(transform, x, raw, t, ratio=ratio)
        logs = s if ratio is None else ratio
        assert logs is not None
        ctx.transform = transform
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y if transform.inverse else None, scale, logs)
        return y, log_det, logs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, scale, logs = ctx.saved_tensors
        y_grad, log_det_grad, logs_grad = grad_outputs
        y_grad = torch.zeros_like(x) if y_grad is None else y_grad
        log_det_grad = x.new_zeros(x.shape[0]) if log_det_grad is None else log_det_grad
        if logs_grad is not None or not is_first_order(y_grad, log_det_grad):
            return None, *_derive(ctx.transform, x, y, logs, y_grad, log_det_grad, logs_grad)
        transform: AffineMap = ctx.transform
        if transform.activation == "atan":
            transform, s = transform._replace(clamp=1.0), None  # of the ratio
        else:
            s = logs
        params_grad = logs.new_empty((logs.shape[0], 2, *logs.shape[1:]))
        grads = (y_grad, log_det_grad), params_grad.unbind(1)
        return None, affine_backward(transform, x, logs, y, Scales(scale, s), *grads), params_grad


def _derive(
    transform: AffineMap,
    x: Tensor,
    y: Tensor | None,
    logs: Tensor,
    y_grad: Tensor,
    log_det_grad: Tensor,
    logs_grad: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``x`` and of the parameters, in operations that autograd differentiates to any order."""
    function, inner, outer = transform.squash
    is_atan = transform.activation == "atan"
    scale = torch.exp(function(logs) * outer if is_atan else logs)
    log_det_grad = log_det_grad.view(-1, *(1,) * (x.ndim - 1))
    if transform.inverse:
        assert y is not None
        x_grad = y_grad / scale
        s_grad, t_grad = -(y_grad * y) - log_det_grad, -x_grad
    else:
        x_grad, t_grad = y_grad * scale, y_grad
        s_grad = x_grad * x + log_det_grad
    if is_atan:
        ratio_grad = outer * s_grad / (1 + logs.square())
        raw_grad = inner * (ratio_grad if logs_grad is None else ratio_grad + logs_grad)
    else:
        total = s_grad if logs_grad is None else s_grad + logs_grad
        raw_grad = soft_clamp_backward(total, logs, logs, transform.clamp, transform.activation)
    return x_grad, torch.stack((raw_grad, t_grad), 1)
