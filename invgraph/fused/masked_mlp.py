"""Masked fully connected networks as one step of the backward pass, which skips blocks of weights that are masked out.

Units are sorted by degree, so the used weights of a wide layer form a staircase: each run of outputs is one product
with the inputs up to the last one that it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.shapes import Tensors
from invgraph.torch_internals import Snapshot, version

_LEAST = 256
"""Units of a layer, before and after, from which on a product in steps is quicker than a whole one."""

_WIDTH, _STEPS = 128, 4
"""Least number of outputs of a step, and largest number of steps."""

_relu_backward = torch.ops.aten.threshold_backward.grad_input

Stairs = Sequence[tuple[slice, slice]]
"""Runs of a layer's outputs, and the inputs that they see; both ends grow."""


def stairs(before: Sequence[int], after: Sequence[int]) -> Stairs:
    """Return the products of a layer between units of these degrees; a single one where steps don't pay."""
    if min(len(before), len(after)) < _LEAST or list(after) != sorted(after) or list(before) != sorted(before):
        return ()
    found = []
    steps = min(_STEPS, len(after) // _WIDTH)
    for step in range(steps):
        rows = slice(step * len(after) // steps, (step + 1) * len(after) // steps)
        found.append((rows, slice(0, sum(degree <= after[rows.stop - 1] for degree in before))))
    return found


class MaskedKernel(NamedTuple):
    """A network ``W_n relu(... relu(W_1 x + b_1 + given)) + b_n``, with masks on its weights.

    Attributes:
        masks: One for each layer, of the dtype of its weights: a conversion takes as long as the product.
        stairs: The products of each layer.
    """

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

    def formula(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """Return the same as :meth:`run`, in operations that autograd differentiates to any order."""
        count = len(self.masks)
        weights = [weight * mask for weight, mask in zip(tensors[:count], self.masks, strict=True)]
        h = linear(x, weights[0], tensors[count])
        for part in tensors[2 * count :]:
            h = h + part if part.shape[0] in (1, h.shape[0]) else (_by_sample(h, part) + part).flatten(0, 1)
        for weight, bias in zip(weights[1:], tensors[count + 1 :], strict=False):
            h = linear(torch.relu(h), weight, bias)
        return h

    def evaluate(
        self, x: Tensor, tensors: Tensors, start: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the output, the hidden layers' values, and the masked weights.

        Arguments:
            x: ``(B, D)``.
            tensors: The same as in :meth:`run`.
            start: Sum of the first layer's bias and the conditions' contribution, if it is known; overwritten.
        """
        layers = len(self.masks)
        weights = [torch.mul(*pair) for pair in zip(tensors[:layers], self.masks, strict=True)]
        biases, hidden = tensors[layers : 2 * layers], []
        if start is not None:
            h = start.addmm_(x, weights[0].t())
        else:
            h = linear(x, weights[0], biases[0])
            for part in tensors[2 * layers :]:
                (h if part.shape[0] in (1, h.shape[0]) else _by_sample(h, part)).add_(part)
        for k in range(1, layers):
            hidden.append(h.relu_())
            h = _product(h, weights[k], biases[k], self.stairs[k])
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
                grad = _input_grad(grad, weights[k], self.stairs[k])
                _relu_backward(grad, read, 0, grad_input=grad)
        return grad, grads


class MaskedLayers:
    """The layers of a masked network as a kernel with its tensors, for as long as nothing about them changes.

    Arguments:
        root: The module whose parts must stay the same, and be called without hooks or patches: the layers, or more.
        layers: The layers; their weights and biases are parameters, and each has a buffer ``mask``.
        stairs: The products of each layer.
    """

    def __init__(self, root: nn.Module, layers: nn.ModuleList, stairs: Sequence[Stairs]) -> None:
        every: list[Any] = list(layers)
        weights = [layer.weight for layer in every]
        self._snapshot = Snapshot(root)
        self._masks = [layer.mask for layer in every]
        self._stamps = list(map(_stamp, self._masks))
        self._first = weights[0]
        self.tensors: Tensors = (*weights, *[layer.bias for layer in every])
        with torch.inference_mode(False):  # a gradient keeps them
            masks = [mask.to(weight) for mask, weight in zip(self._masks, weights, strict=True)]
        self.kernel = MaskedKernel(tuple(masks), stairs)

    def is_current(self, root: nn.Module) -> bool:
        """True if this is still the module that the kernel was made of, without hooks or patches, as precise."""
        if root is not self._snapshot.root or not self._snapshot.holds():
            return False
        for mask in self.kernel.masks[:1]:
            if mask.dtype != self._first.dtype or mask.device != self._first.device:
                return False
        return list(map(_stamp, self._masks)) == self._stamps


def _stamp(mask: Tensor) -> int:
    return 0 if mask.is_inference() else version(mask)


def _product(x: Tensor, weight: Tensor, bias: Tensor, stairs: Stairs) -> Tensor:
    if not stairs:
        return linear(x, weight, bias)
    y = x.new_empty(x.shape[0], weight.shape[0])
    for rows, seen in stairs:
        torch.addmm(bias[rows], x[:, seen], weight[rows, seen].t(), out=y[:, rows])
    return y


def _weight_grad(grad: Tensor, read: Tensor, stairs: Stairs) -> Tensor:
    if not stairs:
        return torch.mm(grad.t(), read)
    weight_grad = grad.new_empty(grad.shape[1], read.shape[1])
    for rows, seen in stairs:
        torch.mm(grad[:, rows].t(), read[:, seen], out=weight_grad[rows, seen])
        weight_grad[rows, seen.stop :].zero_()
    return weight_grad


def _input_grad(grad: Tensor, weight: Tensor, stairs: Stairs) -> Tensor:
    """Return ``grad @ weight``: each step of the inputs is read by the rows of its own step and of all later ones."""
    if not stairs:
        return torch.mm(grad, weight)
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
