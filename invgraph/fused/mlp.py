"""Fully connected networks as functions of their parameters, with gradients derived by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.fused.dispatch import PLAIN, are_exactly
from invgraph.shapes import Tensors
from invgraph.torch_internals import own_parameters

_relu_backward = torch.ops.aten.threshold_backward.default

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

    @property
    def tensors(self) -> Tensors:
        """All of them in one tuple, as :meth:`from_tensors` takes them."""
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
        return self._rest(h)

    def evaluate_bound(self, x: Tensor, addend: Tensor | None) -> Tensor:
        """Return the output, given the sum of the conditions' part of the first layer, which may have fewer rows."""
        weight, bias = self.weights[0].t(), self.biases[0]
        h = torch.addmm(bias, x, weight)
        if addend is not None:
            samples = h if addend.shape[0] in (1, h.shape[0]) else h.unflatten(0, (-1, addend.shape[0]))
            samples.add_(addend)
        return self._rest(h)[0]

    def _rest(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        hidden: list[Tensor] = []
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden.append(h.relu_())
            h = torch.addmm(bias, h, weight.t())
        return h, hidden

    def backward(
        self, x: Tensor, cs: Tensors, hidden: Sequence[Tensor], grad: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return gradients, from that of the output.

        Returns:
            The gradient of the first layer's sum, from which those of ``x`` and of the conditions are one product
            away, and the gradients of :attr:`tensors`, where wanted.
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
    """Return the kernel of a network, or None unless every layer of it is exactly an ``nn.Linear``."""
    kind = type(network)
    reader = _readers.get(kind)
    if reader is None or not are_exactly(kind, (network,)):
        return None
    layers, conditions = reader(network)
    if not are_exactly(nn.Linear, (*layers, *conditions)):
        return None
    stores = [own_parameters(layer) for layer in layers]
    weights, biases = tuple([own.get("weight") for own in stores]), tuple([own.get("bias") for own in stores])
    kernel = MLPKernel(weights, biases, tuple([own_parameters(layer).get("weight") for layer in conditions]))  # type: ignore[arg-type]
    for tensor in kernel.tensors:
        if type(tensor) not in PLAIN:  # None, too: a layer without bias, or a replica
            return None
    return kernel
