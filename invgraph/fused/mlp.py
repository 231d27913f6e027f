"""Fully connected networks as functions of their parameters, with gradients derived by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.fused.dispatch import PLAIN
from invgraph.shapes import Tensors

_relu_backward = torch.ops.aten.threshold_backward.default
_linear_forward = nn.Linear.forward

Linears = tuple[Iterable[nn.Module], Iterable[nn.Module]]
"""The linear layers of a network, in order, and those that read the conditions."""

_readers: dict[type[nn.Module], Callable[[nn.Module], Linears]] = {}


def register(kind: type[nn.Module], linears: Callable[[nn.Module], Linears]) -> None:
    """Let the kernel stand in for networks of a class.

    Arguments:
        kind: The class: linear layers with ReLU between them, the first of which also reads the conditions.
        linears: Returns the linear layers of such a network.
    """
    _readers[kind] = linears


class MLPKernel(NamedTuple):
    """The parameters of a network ``W_n relu(... relu(W_1 x + b_1 + sum of W_c c)) + b_n``."""

    weights: Tensors
    biases: Tensors
    condition_weights: Tensors
    """W_c, one for each condition."""

    def tensors(self) -> Tensors:
        """Return all of them in one tuple, as :meth:`from_tensors` takes them."""
        return (*self.weights, *self.biases, *self.condition_weights)

    @classmethod
    def from_tensors(cls, tensors: Tensors, layers: int) -> Self:
        return cls(tensors[:layers], tensors[layers : 2 * layers], tensors[2 * layers :])

    def differentiable(self, x: Tensor, cs: Tensors) -> Tensor:
        """Return the output, in operations that autograd differentiates to any order."""
        h = functional.linear(x, self.weights[0], self.biases[0])
        for c, weight in zip(cs, self.condition_weights, strict=True):
            h = h + functional.linear(c, weight)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = functional.linear(torch.relu(h), weight, bias)
        return h

    def evaluate(self, x: Tensor, cs: Tensors) -> tuple[Tensor, list[Tensor]]:
        """Return the output and the hidden layers' values; each number is written once, and added to in place."""
        h = self.biases[0]
        for c, weight in zip(cs, self.condition_weights, strict=True):
            h = torch.addmm(h, c, weight.t()) if h is self.biases[0] else h.addmm_(c, weight.t())
        h = h.addmm_(x, self.weights[0].t()) if cs else torch.addmm(h, x, self.weights[0].t())
        hidden: list[Tensor] = []
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden.append(h.relu_())
            h = torch.addmm(bias, h, weight.t())
        return h, hidden

    def evaluate_bound(self, x: Tensor, addend: Tensor) -> Tensor:
        """Return the output, given the sum of the conditions' part of the first layer, which may have fewer rows."""
        h = torch.addmm(self.biases[0], x, self.weights[0].t())
        samples = h if addend.shape[0] in (1, h.shape[0]) else torch.unflatten(h, 0, (-1, addend.shape[0]))
        samples.add_(addend)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = torch.addmm(bias, h.relu_(), weight.t())
        return h

    def backward(
        self, x: Tensor, cs: Tensors, hidden: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return gradients, from that of the output.

        Returns:
            The gradient of the first layer's sum, from which those of ``x`` and of the conditions are one product
            away, and the gradients of :meth:`tensors`, where wanted.
        """
        layers = len(self.weights)
        grads: list[Tensor | None] = [None] * len(wanted)
        for k in range(layers - 1, -1, -1):
            read = hidden[k - 1] if k else x
            transposed = grad.t()
            if wanted[k]:
                grads[k] = transposed @ read
            if wanted[layers + k]:
                grads[layers + k] = grad.sum(0)
            if k:
                grad = _relu_backward(grad @ self.weights[k], read, 0)
        for k, c in enumerate(cs, 2 * layers):
            if wanted[k]:
                grads[k] = transposed @ c
        return grad, grads


def as_mlp(network: nn.Module) -> MLPKernel | None:
    """Return the kernel of a network, or None unless every layer of it is exactly an ``nn.Linear`` with a bias."""
    reader = _readers.get(type(network))
    if reader is None or nn.Linear.forward is not _linear_forward:
        return None
    layers, conditions = (list(part) for part in reader(network))
    if any(type(layer) is not nn.Linear for layer in (*layers, *conditions)):
        return None
    stores = [dict(layer.named_parameters()) for layer in layers]  # empty in data-parallel replicas
    weights, biases = tuple([own.get("weight") for own in stores]), tuple([own.get("bias") for own in stores])
    given = tuple([dict(layer.named_parameters()).get("weight") for layer in conditions])
    if any(type(tensor) not in PLAIN for tensor in (*weights, *biases, *given)):
        return None
    return MLPKernel(weights, biases, given)  # type: ignore[arg-type]
