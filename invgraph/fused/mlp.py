"""Fully connected networks as functions of their parameters, with their gradients written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.shapes import Tensors

_past_relu = torch.ops.aten.threshold_backward.default


class Dense(NamedTuple):
    """The parameters of a network ``W_n relu(... relu(W_1 x + b_1 + sum of W_c c)) + b_n``."""

    weights: Tensors
    biases: Tensors
    given: Tensors
    """W_c, one for each condition."""

    @property
    def tensors(self) -> Tensors:
        """All of them in one tuple, as :meth:`from_tensors` takes them."""
        return (*self.weights, *self.biases, *self.given)

    @classmethod
    def from_tensors(cls, tensors: Tensors, layers: int) -> Self:
        return cls(tensors[:layers], tensors[layers : 2 * layers], tensors[2 * layers :])

    def plain(self, x: Tensor, cs: Tensors) -> Tensor:
        """The output, in operations that autograd differentiates to any order."""
        h = functional.linear(x, self.weights[0], self.biases[0])
        for c, weight in zip(cs, self.given, strict=True):
            h = h + functional.linear(c, weight)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = functional.linear(torch.relu(h), weight, bias)
        return h

    def evaluate(self, x: Tensor, cs: Tensors) -> tuple[Tensor, list[Tensor]]:
        """The output, and what the hidden layers pass on; every number is written once, to be added to in place."""
        h = self.biases[0]
        for c, weight in zip(cs, self.given, strict=True):
            h = torch.addmm(h, c, weight.t()) if h is self.biases[0] else h.addmm_(c, weight.t())
        h = h.addmm_(x, self.weights[0].t()) if cs else torch.addmm(h, x, self.weights[0].t())
        hidden: list[Tensor] = []
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden.append(h.relu_())
            h = torch.addmm(bias, h, weight.t())
        return h, hidden

    def pull(
        self, x: Tensor, cs: Tensors, hidden: Sequence[Tensor], slope: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients, from the output's.

        Returns:
            That of the first layer's sum, from which those of ``x`` and of the conditions are one product away, and
            those of :attr:`tensors`, where wanted.
        """
        layers = len(self.weights)
        found: list[Tensor | None] = [None] * len(wanted)
        for k in range(layers - 1, -1, -1):
            read = hidden[k - 1] if k else x
            turned = slope.t()
            if wanted[k]:
                found[k] = turned @ read
            if wanted[layers + k]:
                found[layers + k] = slope.sum(0)
            if k:
                slope = _past_relu(slope @ self.weights[k], read, 0)
        for k, c in enumerate(cs, 2 * layers):
            if wanted[k]:
                found[k] = turned @ c
        return slope, found
