"""Gradients of an affine coupling of fully connected networks, derived by hand.

Autograd would split, join and add up the parts of the channels, and keep more of them: here each number of a gradient
is written once, in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.fused.plan import AffineKernel, Kept, MLPKernel, Plan
from invgraph.numerics.soft_clamp import Activation
from invgraph.shapes import Tensors

_relu_backward = torch.ops.aten.threshold_backward.default

Side = Callable[[int, MLPKernel, Tensor], Kept]
"""Returns what one side's gradient needs, from the place of the side in the order, its network, and what that reads."""


def coupling_backward(
    plan: Plan, x: Tensor, y: Tensor, tensors: Tensors, kept_of: Side, grad_outputs: Sequence[Tensor],
    wanted: Sequence[bool], *, x_wanted: bool = True,
) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
    """Return the gradients of ``x`` and of the tensors, where wanted.

    Arguments:
        plan: The coupling.
        x: What was transformed; a side's part of it is read after ``kept_of`` was called for the side.
        y: The result.
        tensors: The conditions, then each side's parameters.
        kept_of: Returns what each side has kept.
        grad_outputs: The gradients of the result and of its log-determinant.
        wanted: For each of the tensors, True if its gradient is asked for.
        x_wanted: True if that of ``x`` is.
    """
    cs, nets = unflatten(plan, tensors)
    x_grad, log_det_grad = torch.empty_like(x) if x_wanted or len(plan.order) > 1 else None, grad_outputs[1]
    before, after = (torch.split_with_sizes(value, plan.sizes, 1) for value in (x, y))
    out = (None, None) if x_grad is None else torch.split_with_sizes(x_grad, plan.sizes, 1)
    current = list(torch.split_with_sizes(grad_outputs[0], plan.sizes, 1))
    grads: list[Tensor | None] = [None] * len(tensors)
    for place in reversed(range(len(plan.order))):
        side = plan.order[place]
        other, net = 1 - side, nets[side]
        read = after[other] if place else before[other]
        own = kept_of(place, net, read)
        transformed = affine_backward(
            plan.transform, before[side], own.raw, after[side], own.scales, (current[side], log_det_grad), out=out[side]
        )
        current[side], grad = transformed[0] if x_grad is not None else current[side], transformed[1].flatten(1)
        del transformed  # the gradients of the weights, which come next, need most room
        start = plan.conditions + (2 * plan.layers[0] + plan.conditions if side else 0)
        end = start + 2 * plan.layers[side] + plan.conditions
        passed = [grad]
        del grad
        grad, grads[start:end] = mlp_backward(net, read, cs, own.hidden, passed.pop(), wanted[start:end])
        if place or x_wanted:
            current[other] = torch.addmm(current[other], grad, net.weights[0], out=out[other])
        for k in range(plan.conditions):
            if wanted[k]:
                so_far, more = grads[k], grad @ net.condition_weights[k]
                grads[k] = more if so_far is None else so_far.add_(more)
    return x_grad, grads


def unflatten(plan: Plan, tensors: Tensors) -> tuple[Tensors, list[MLPKernel]]:
    """Return the conditions, and the network of each side."""
    nets, start = [], plan.conditions
    for layers in plan.layers:
        weights, biases, end = start + layers, start + 2 * layers, start + 2 * layers + plan.conditions
        nets.append(MLPKernel(tensors[start:weights], tensors[weights:biases], tensors[biases:end]))
        start = end
    return tensors[: plan.conditions], nets


def mlp_backward(
    net: MLPKernel, x: Tensor, cs: Tensors, hidden: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients of a network, from that of its output.

    Returns:
        The gradient of the first layer's sum, from which those of ``x`` and of the conditions are one product
        away, and the gradients of the weights, the biases and the conditions' weights, where wanted.
    """
    layers = len(net.weights)
    grads: list[Tensor | None] = [None] * len(wanted)
    for k in range(layers - 1, -1, -1):
        read = hidden[k - 1] if k else x
        transposed = grad.t()
        if wanted[k]:
            grads[k] = transposed @ read
        if wanted[layers + k]:
            grads[layers + k] = grad.sum(0)
        if k:
            grad = _relu_backward(grad @ net.weights[k], read, 0)
    for k, c in enumerate(cs, 2 * layers):
        if wanted[k]:
            grads[k] = transposed @ c
    return grad, grads


def affine_backward(
    kernel: AffineKernel,
    x: Tensor,
    raw: Tensor,
    y: Tensor | None,
    scales: Sequence[Tensor],
    grad_outputs: tuple[Tensor, Tensor],
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``x`` (in ``out``, which may be that of the result) and of the parameters.

    Arguments:
        kernel: The transform.
        x: What was transformed.
        raw: The first of its two parameters, from which the scales were made.
        y: The result; of the inverse alone.
        scales: The scales.
        grad_outputs: The gradients of the result and of its log-determinant.
        out: Where to write the gradient of ``x``.
    """
    y_grad, log_det_grad = grad_outputs
    scale, s = scales[0], scales[-1]
    params_grad = raw.new_empty((raw.shape[0], 2, *raw.shape[1:]))
    raw_grad, t_grad = params_grad.unbind(1)
    log_det_grad = log_det_grad.view(-1, *(1,) * (raw.ndim - 1))
    if kernel.inverse:
        torch.addcmul(-log_det_grad, y_grad, y, value=-1, out=raw_grad)  # type: ignore[arg-type]
        x_grad = torch.div(y_grad, scale, out=out)
        torch.neg(x_grad, out=t_grad)
    else:
        t_grad.copy_(y_grad)
        x_grad = torch.mul(y_grad, scale, out=out)
        torch.addcmul(log_det_grad, x_grad, x, out=raw_grad)
    soft_clamp_backward(raw_grad, raw, s, kernel.clamp, kernel.activation, out=raw_grad)
    return x_grad, params_grad


def soft_clamp_backward(
    grad_output: Tensor, s: Tensor, clamped: Tensor, alpha: float, activation: Activation, out: Tensor | None = None
) -> Tensor:
    """Return the gradient with respect to ``s`` from that with respect to its soft clamp ``clamped``."""
    if activation == "atan":
        half = math.pi / 2
        return torch.div(grad_output, torch.addcmul(s.new_full((), half), s, s, value=half / alpha**2), out=out)
    ratio = clamped if alpha == 1 else clamped / alpha
    slope = 1.0 if activation == "tanh" else 0.5  # at s = 0
    return torch.mul(grad_output, torch.addcmul(s.new_full((), slope), ratio, ratio, value=-slope), out=out)


def coupling_formula(plan: Plan, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a coupling's result and log-determinant, in operations that autograd differentiates to any order."""
    cs, nets = unflatten(plan, tensors)
    parts, log_det = list(torch.split_with_sizes(x, plan.sizes, 1)), x.new_zeros(x.shape[0])
    for side in plan.order:
        params = torch.unflatten(_mlp_formula(nets[side], parts[1 - side], cs), 1, (2, -1))
        parts[side], more = plan.transform.formula(parts[side], params)
        log_det = log_det + more
    return torch.cat(parts, 1), log_det


def _mlp_formula(net: MLPKernel, x: Tensor, cs: Tensors) -> Tensor:
    h = functional.linear(x, net.weights[0], net.biases[0])
    for c, weight in zip(cs, net.condition_weights, strict=True):
        h = h + functional.linear(c, weight)
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        h = functional.linear(torch.relu(h), weight, bias)
    return h
