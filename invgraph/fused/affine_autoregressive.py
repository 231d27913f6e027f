"""An affine autoregressive layer with its masked network as one step of the backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.affine import evaluate_affine
from invgraph.fused.affine_gradient import affine_backward
from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.fused.descriptions import AffineMap, Scales
from invgraph.fused.masked_mlp import MaskedKernel
from invgraph.shapes import Tensors


class AffineAutoregressiveKernel(NamedTuple):
    """``x exp(s) + t``, with s and t from a masked network that reads ``x`` and at most one condition."""

    network: MaskedKernel
    transform: AffineMap

    def run(self, x: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Return the result and its log-determinant per sample.

        Arguments:
            x: ``(B, D)``.
            tensors: The network's weights, its biases, and the condition with the weight of the layer that reads it.
        """
        if needs_grad(x, *tensors):
            return _AffineAutoregressive.apply(self, x, *tensors)  # type: ignore[no-untyped-call, no-any-return]
        params, _, _ = self.network.evaluate(x, self.with_contribution(tensors))
        return evaluate_affine(self.transform, x, _by_element(params))[:2]

    def formula(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as :meth:`run`, in operations that autograd differentiates to any order."""
        params = self.network.formula(x, *self.with_contribution(tensors))
        return self.transform.formula(x, torch.unflatten(params, 1, (2, -1)))

    def with_contribution(self, tensors: Tensors) -> Tensors:
        """Return the tensors with the condition's contribution to the first layer in place of condition and weight."""
        own = 2 * len(self.network.masks)
        return (*tensors[:own], tensors[own] @ tensors[own + 1].t()) if len(tensors) > own else tensors


def _by_element(params: Tensor) -> Tensor:
    return params.view(params.shape[0], 2, params.shape[1] // 2)


class _AffineAutoregressive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: AffineAutoregressiveKernel, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        output, hidden, weights = kernel.network.evaluate(x, kernel.with_contribution(tensors))
        params = _by_element(output)
        y, log_det, scales = evaluate_affine(kernel.transform, x, params)
        ctx.kernel, ctx.count = kernel, len(tensors)
        ctx.save_for_backward(x, *tensors, *hidden, *weights, params, *scales)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, y_grad: Tensor, log_det_grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel: AffineAutoregressiveKernel = ctx.kernel
        layers, wanted = len(kernel.network.masks), ctx.needs_input_grad[1:]
        x, *others = ctx.saved_tensors
        tensors, kept = tuple(others[: ctx.count]), others[ctx.count :]
        if not is_first_order(y_grad, log_det_grad):
            return None, *differentiate(kernel.formula, (x, *tensors), (y_grad, log_det_grad))
        hidden, weights = kept[: layers - 1], kept[layers - 1 : 2 * layers - 1]
        params, *scales = kept[2 * layers - 1 :]
        x_grad, params_grad = affine_backward(
            kernel.transform, x, params.select(1, 0), None, Scales(*scales), (y_grad, log_det_grad)
        )
        first, grads = kernel.network.backward(x, hidden, weights, params_grad.flatten(1), wanted[1:])
        for c, weight in [tensors[2 * layers :]] if len(tensors) > 2 * layers else ():
            places = wanted[-2:]
            grads += [first @ weight if places[0] else None, first.t() @ c if places[1] else None]
        return None, torch.addmm(x_grad, first, weights[0]) if wanted[0] else None, *grads
