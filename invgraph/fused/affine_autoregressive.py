"""An affine autoregressive layer with its masked network as one step of the backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invgraph.fused.affine import evaluate_affine
from invgraph.fused.affine_gradient import affine_backward
from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.fused.descriptions import AffineMap, Scales
from invgraph.fused.masked_mlp import MaskedKernel, MaskedLayers
from invgraph.shapes import Tensors
from invgraph.torch_internals import PLAIN


class AffineAutoregressive:
    """An affine autoregressive layer: what it calls in place of its own arithmetic.

    Arguments:
        layers: Those of the network.
        transform: The map.
        condition_weight: Weight of the layer that reads the condition; None if there is no condition.
    """

    def __init__(self, layers: MaskedLayers, transform: AffineMap, condition_weight: Tensor | None = None) -> None:
        self._layers, self._kernel = layers, _Kernel(layers.kernel, transform)
        self._condition_weight = () if condition_weight is None else (condition_weight,)

    def is_current(self, subnet: nn.Module) -> bool:
        """True if this is still the network that the kernel was made of, without hooks or patches, as precise."""
        return self._layers.is_current(subnet)

    def takes(self, x: Tensor, cs: Tensors) -> bool:
        """True if the layer's result for these data and conditions would be that of the kernel."""
        if len(cs) != len(self._condition_weight):
            return False
        return not cs or (type(cs[0]) in PLAIN and cs[0].ndim == 2 and cs[0].dtype == x.dtype)

    def run(self, x: Tensor, cs: Tensors) -> tuple[Tensor, Tensor]:
        """Return the result and its log-determinant per sample."""
        tensors = (*self._layers.tensors, *cs, *self._condition_weight)
        if needs_grad(x, *tensors):
            return _AffineAutoregressive.apply(self._kernel, x, *tensors)  # type: ignore[no-untyped-call, no-any-return]
        return self._kernel.evaluate(x, tensors)[:2]


class _Kernel(NamedTuple):
    """``x exp(s) + t``, with s and t from a masked network that reads ``x`` and at most one condition.

    Its tensors are the network's weights and its biases, and the condition with the weight of the layer that reads it.
    """

    network: MaskedKernel
    transform: AffineMap

    def formula(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the result and its log-determinant, in operations that autograd differentiates to any order."""
        own = 2 * len(self.network.masks)
        contribution = (tensors[own] @ tensors[own + 1].t(),) if len(tensors) > own else ()
        params = self.network.formula(x, *tensors[:own], *contribution)
        return self.transform.formula(x, torch.unflatten(params, 1, (2, -1)))

    def evaluate(self, x: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        """Return the result, its log-determinant, and what the gradient needs."""
        layers, start = len(self.network.masks), None
        if len(tensors) > 2 * layers:
            start = linear(tensors[-2], tensors[-1], tensors[layers])
        output, hidden, weights = self.network.evaluate(x, tensors, start)
        raw, t = output.chunk(2, 1)
        y, log_det, scales = evaluate_affine(self.transform, x, raw, t)
        return y, log_det, (*hidden, *weights, raw, *scales)


class _AffineAutoregressive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: _Kernel, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, kept = kernel.evaluate(x, tensors)
        ctx.kernel, ctx.count = kernel, len(tensors)
        ctx.save_for_backward(x, *tensors, *kept)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, y_grad: Tensor, log_det_grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel: _Kernel = ctx.kernel
        layers, wanted = len(kernel.network.masks), ctx.needs_input_grad[1:]
        x, *others = ctx.saved_tensors
        tensors, kept = tuple(others[: ctx.count]), others[ctx.count :]
        if not is_first_order(y_grad, log_det_grad):
            return None, *differentiate(kernel.formula, (x, *tensors), (y_grad, log_det_grad))
        hidden, weights = kept[: layers - 1], kept[layers - 1 : 2 * layers - 1]
        raw, *scales = kept[2 * layers - 1 :]
        params_grad = x.new_empty(x.shape[0], 2 * x.shape[1])
        grad_outputs = y_grad, log_det_grad
        x_grad = affine_backward(kernel.transform, x, raw, None, Scales(*scales), grad_outputs, params_grad.chunk(2, 1))
        first, grads = kernel.network.backward(x, hidden, weights, params_grad, wanted[1:])
        if len(tensors) > 2 * layers:
            c, weight = tensors[2 * layers :]
            grads += [torch.mm(first, weight) if wanted[-2] else None, torch.mm(first.t(), c) if wanted[-1] else None]
        return None, torch.addmm(x_grad, first, weights[0]) if wanted[0] else None, *grads
