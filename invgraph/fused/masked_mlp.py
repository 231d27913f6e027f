"""Masked fully connected networks as one step of the backward pass, which skips blocks of weights that are masked out.

Units are sorted by degree, so the used weights of a wide layer form a staircase: each run of outputs is one product
with the inputs up to the last one that it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.shapes import Tensors

_LEAST = 256
"""Units of a layer, before and after, from which on a product in steps is quicker than a whole one."""

_STEPS = 4

_relu_backward = torch.ops.aten.threshold_backward.default

Stairs = Sequence[tuple[slice, slice]]
"""Runs of a layer's outputs, and the inputs that they see; both ends grow."""


def stairs(before: Sequence[int], after: Sequence[int]) -> Stairs:
    """Return the products of a layer between units of these degrees; a single one where steps don't pay."""
    if min(len(before), len(after)) < _LEAST or list(after) != sorted(after) or list(before) != sorted(before):
        return ()
    found = []
    for step in range(_STEPS):
        rows = slice(step * len(after) // _STEPS, (step + 1) * len(after) // _STEPS)
        found.append((rows, slice(0, sum(degree <= after[rows.stop - 1] for degree in before))))
    return found


class MaskedKernel(NamedTuple):
    """A network ``W_n relu(... relu(W_1 x + b_1 + given)) + b_n``, with masks on its weights.

    Attributes:
        formula: The same as :meth:`run`, in operations that autograd differentiates to any order.
        masks: One for each layer.
        stairs: The products of each layer.
    """

    formula: Callable[..., Tensor]
    masks: Tensors
    stairs: Sequence[Stairs]

    def run(self, x: Tensor, tensors: Tensors) -> Tensor:
        """Return the output.

        Arguments:
            x: ``(B, D)``.
            tensors: The weights, the biases, and the conditions' contribution to the first layer, if there is one;
                each of its rows may serve several samples.
        """
        if needs_grad(x, *tensors):
            return _MaskedMLP.apply(self, x, *tensors)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(x, tensors)[0]

    def evaluate(self, x: Tensor, tensors: Tensors) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the output, the hidden layers' values, and the masked weights."""
        layers = len(self.masks)
        weights = [weight * mask for weight, mask in zip(tensors[:layers], self.masks, strict=True)]
        h, hidden = x, []
        for k, (weight, bias) in enumerate(zip(weights, tensors[layers : 2 * layers], strict=True)):
            if k:
                hidden.append(h.relu_())
            h = _product(h, weight, bias, self.stairs[k])
            for part in tensors[2 * layers :] if k == 0 else ():
                (h if part.shape[0] in (1, h.shape[0]) else _by_sample(h, part)).add_(part)
        return h, hidden, weights

    def backward(
        self, x: Tensor, hidden: Sequence[Tensor], weights: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return gradients, from that of the output.

        Returns:
            The gradient of the first layer's sum, and the gradients of weights and biases, where wanted.
        """
        layers = len(weights)
        grads: list[Tensor | None] = [None] * (2 * layers)
        for k in range(layers - 1, -1, -1):
            read = hidden[k - 1] if k else x
            if wanted[k]:
                grads[k] = _weight_grad(grad, read, self.stairs[k]).mul_(self.masks[k])
            if wanted[layers + k]:
                grads[layers + k] = grad.sum(0)
            if k:
                grad = _relu_backward(_input_grad(grad, weights[k], self.stairs[k]), read, 0)
        return grad, grads


def _product(x: Tensor, weight: Tensor, bias: Tensor, stairs: Stairs) -> Tensor:
    if not stairs:
        return torch.addmm(bias, x, weight.t())
    y = x.new_empty(x.shape[0], weight.shape[0])
    for rows, seen in stairs:
        torch.addmm(bias[rows], x[:, seen], weight[rows, seen].t(), out=y[:, rows])
    return y


def _weight_grad(grad: Tensor, read: Tensor, stairs: Stairs) -> Tensor:
    if not stairs:
        return grad.t() @ read
    weight_grad = grad.new_empty(grad.shape[1], read.shape[1])
    for rows, seen in stairs:
        torch.mm(grad[:, rows].t(), read[:, seen], out=weight_grad[rows, seen])
        weight_grad[rows, seen.stop :].zero_()
    return weight_grad


def _input_grad(grad: Tensor, weight: Tensor, stairs: Stairs) -> Tensor:
    """Return ``grad @ weight``: each step of the inputs is read by the rows of its own step and of all later ones."""
    if not stairs:
        return grad @ weight
    x_grad = grad.new_empty(grad.shape[0], weight.shape[1])
    start = 0
    for rows, seen in stairs:
        own = slice(start, seen.stop)
        if own.stop > own.start:
            torch.mm(grad[:, rows.start :], weight[rows.start :, own], out=x_grad[:, own])
        start = seen.stop
    x_grad[:, start:].zero_()
    return x_grad


def _by_sample(h: Tensor, part: Tensor) -> Tensor:
    """Return values with an axis of samples before the axis of the conditions' rows."""
    samples: Tensor = torch.unflatten(h, 0, (h.shape[0] // max(1, part.shape[0]), part.shape[0]))
    return samples


class _MaskedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: MaskedKernel, x: Tensor, *tensors: Tensor) -> Tensor:
        y, hidden, weights = kernel.evaluate(x, tensors)
        ctx.kernel, ctx.count = kernel, len(tensors)
        ctx.save_for_backward(x, *tensors, *hidden, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel: MaskedKernel = ctx.kernel
        layers = len(kernel.masks)
        x, *others = ctx.saved_tensors
        tensors, kept = tuple(others[: ctx.count]), others[ctx.count :]
        if not is_first_order(grad):
            return None, *differentiate(lambda *values: (kernel.formula(*values),), (x, *tensors), (grad,))
        hidden, weights = kept[: layers - 1], kept[layers - 1 :]
        wanted = ctx.needs_input_grad[1:]
        first, grads = kernel.backward(x, hidden, weights, grad, wanted[1:])
        for part in tensors[2 * layers :]:
            grads.append(first if part.shape == first.shape else _by_sample(first, part).sum(0))
        return None, first @ weights[0] if wanted[0] else None, *grads
