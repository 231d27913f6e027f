"""Gradients of affine maps, and of couplings of them with fully connected networks, derived by hand.

Autograd would split, join and add up the parts of the channels, and keep more of them. Here the gradients are written
directly into their final tensors, without copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.fused.descriptions import AffineMap, CouplingLayout, Kept, MLPParameters, Scales
from invgraph.numerics.soft_clamp import Activation
from invgraph.shapes import Tensors

_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward, _tanh_backward_to = torch.ops.aten.tanh_backward.default, torch.ops.aten.tanh_backward.grad_input

KeptOf = Callable[[int, MLPParameters, Tensor], Kept]
"""Returns what a side has kept, from its place in the order, its network's parameters, and what the network reads."""


def coupling_backward(
    layout: CouplingLayout, x: Tensor, y: Tensor, tensors: Tensors, kept_of: KeptOf, grad_outputs: Sequence[Tensor],
    wanted: Sequence[bool], *, x_wanted: bool = True,
) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
    """Return the gradients of ``x`` and of the tensors, where wanted.

    Arguments:
        layout: The coupling.
        x: The input; a side's part of it is not read before ``kept_of`` was called for the side.
        y: The output.
        tensors: The conditions, then each side's parameters.
        kept_of: Returns what each side has kept.
        grad_outputs: The gradients of the output and of the log-determinant.
        wanted: For each of the tensors, True if its gradient is needed.
        x_wanted: True if the gradient of ``x`` is needed.
    """
    cs, nets, starts = unflatten(layout, tensors)
    log_det_grad = grad_outputs[1]
    # The first side's gradient passes through that of the second, so two sides need room for it in any case.
    x_grad = torch.empty_like(x) if x_wanted or len(layout.order) > 1 else None
    before, after = (torch.split_with_sizes(value, layout.sizes, 1) for value in (x, y))
    out = (None, None) if x_grad is None else torch.split_with_sizes(x_grad, layout.sizes, 1)
    current = list(torch.split_with_sizes(grad_outputs[0], layout.sizes, 1))
    grads: list[Tensor | None] = [None] * len(tensors)
    for place in reversed(range(len(layout.order))):
        side = layout.order[place]
        other, net = 1 - side, nets[side]
        read = after[other] if place else before[other]
        kept = kept_of(place, net, read)
        params_grad = x.new_empty(x.shape[0], 2 * layout.sizes[side])
        own_grad = affine_backward(
            layout.transform, before[side], kept.raw, after[side], kept.scales, (current[side], log_det_grad),
            params_grad.chunk(2, 1), out[side],
        )  # fmt: skip
        if x_grad is not None:
            current[side] = own_grad
        # The gradients of the weights use the most memory. The list hands over the only reference to that of the
        # parameters, so that the network can free it on the way.
        passed = [params_grad]
        del own_grad, params_grad
        own = slice(starts[side], starts[side + 1])
        first_grad, grads[own] = mlp_backward(net, read, cs, kept.hidden, passed, wanted[own])
        if place or x_wanted:  # before the first side, only the gradient of x depends on what its network has read
            current[other] = torch.addmm(current[other], first_grad, net.weights[0], out=out[other])
        for k in range(layout.conditions):
            if wanted[k]:
                so_far, more = grads[k], first_grad @ net.condition_weights[k]
                grads[k] = more if so_far is None else so_far.add_(more)
    return x_grad if x_wanted else None, grads


def unflatten(layout: CouplingLayout, tensors: Tensors) -> tuple[Tensors, list[MLPParameters], list[int]]:
    """Return the conditions, each side's parameters, and where these start and end among the tensors."""
    nets, starts = [], [layout.conditions]
    for layers in layout.layers:
        start, biases, last = starts[-1], starts[-1] + layers, starts[-1] + 2 * layers
        starts.append(last + layout.conditions)
        nets.append(MLPParameters(tensors[start:biases], tensors[biases:last], tensors[last : starts[-1]]))
    return tensors[: layout.conditions], nets, starts


def mlp_backward(
    net: MLPParameters, x: Tensor, cs: Tensors, hidden: Sequence[Tensor], passed: list[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients of a network.

    Arguments:
        net: The parameters.
        x: The input.
        cs: The conditions.
        hidden: The values of the hidden layers.
        passed: The gradient of the output alone; it is taken out of the list.
        wanted: For each parameter (weights, biases, weights of the conditions), True if its gradient is needed.

    Returns:
        The gradient of the first layer's sum, from which those of ``x`` and of the conditions are one product
        away, and the gradients of the parameters, where wanted.
    """
    layers, grad = len(net.weights), passed.pop()
    grads: list[Tensor | None] = [None] * len(wanted)
    for k in range(layers - 1, -1, -1):
        read = hidden[k - 1] if k else x
        transposed = grad.t()
        if wanted[k]:
            grads[k] = transposed @ read
        if wanted[layers + k]:
            grads[layers + k] = grad.sum(0)
        if k:
            grad = grad @ net.weights[k]
            _relu_backward(grad, read, 0, grad_input=grad)
    for k, c in enumerate(cs, 2 * layers):
        if wanted[k]:
            grads[k] = transposed @ c
    return grad, grads


def affine_backward(
    transform: AffineMap,
    x: Tensor,
    raw: Tensor,
    y: Tensor | None,
    scales: Scales,
    grad_outputs: tuple[Tensor, Tensor],
    params_grads: Sequence[Tensor],
    out: Tensor | None = None,
) -> Tensor:
    """Return the gradient of ``x``.

    Arguments:
        transform: The map.
        x: The input.
        raw: The first of its two parameters, from which the scales were made.
        y: The output; read only for the inverse.
        scales: The scales, as :func:`~invgraph.fused.affine.evaluate_affine` returned them.
        grad_outputs: The gradients of the output and of its log-determinant.
        params_grads: Where to write those of the two parameters.
        out: Where to write the gradient of ``x``; may be the gradient of the output.
    """
    y_grad, log_det_grad = grad_outputs
    raw_grad, t_grad = params_grads
    log_det_grad = log_det_grad.view(-1, *(1,) * (raw.ndim - 1))
    if transform.inverse:
        assert y is not None
        torch.addcmul(-log_det_grad, y_grad, y, value=-1, out=raw_grad)
        x_grad = torch.div(y_grad, scales.scale, out=out)
        torch.neg(x_grad, out=t_grad)
    else:
        t_grad.copy_(y_grad)
        x_grad = torch.mul(y_grad, scales.scale, out=out)
        torch.addcmul(log_det_grad, x_grad, x, out=raw_grad)
    soft_clamp_backward(raw_grad, raw, scales.s, transform.clamp, transform.activation, out=raw_grad)
    return x_grad


def soft_clamp_backward(
    grad_output: Tensor, s: Tensor, clamped: Tensor | None, alpha: float, activation: Activation,
    factor: float = 1.0, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the gradient of ``s``, from that of the soft clamp of ``factor * s``, which the atan does not need."""
    if activation == "atan":
        least = math.pi / 2 / factor
        divisor = torch.addcmul(s.new_full((), least), s, s, value=least * (factor / alpha) ** 2)
        return torch.div(grad_output, divisor, out=out)
    assert clamped is not None
    slope = factor * (1.0 if activation == "tanh" else 0.5)  # at s = 0
    # At the bound this is exactly 1, and the slope 0; a device would multiply by the rounded inverse of a plain number.
    tanh = clamped / s.new_full((), alpha)
    grad = _tanh_backward(grad_output, tanh) if out is None else _tanh_backward_to(grad_output, tanh, grad_input=out)
    return grad if slope == 1 else torch.mul(grad, slope, out=out)


def coupling_formula(layout: CouplingLayout, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a coupling's output and log-determinant, in operations that autograd differentiates to any order."""
    cs, nets, _ = unflatten(layout, tensors)
    parts, log_det = list(torch.split_with_sizes(x, layout.sizes, 1)), x.new_zeros(x.shape[0])
    for side in layout.order:
        params = torch.unflatten(_mlp_formula(nets[side], parts[1 - side], cs), 1, (2, -1))
        parts[side], more = layout.transform.formula(parts[side], params)
        log_det = log_det + more
    return torch.cat(parts, 1), log_det


def _mlp_formula(net: MLPParameters, x: Tensor, cs: Tensors) -> Tensor:
    h = functional.linear(x, net.weights[0], net.biases[0])
    for c, weight in zip(cs, net.condition_weights, strict=True):
        h = h + functional.linear(c, weight)
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        h = functional.linear(torch.relu(h), weight, bias)
    return h
