"""The inverse of an autoregressive layer at the cost of one pass of its network, with a gradient derived by hand.

A hidden unit that sees the first d elements is evaluated once, as soon as these are known. Values are stored with a row
per unit, so that the units of one place are a slice without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.shapes import Tensors

_BLOCK = 8
"""Places whose units are evaluated in one product, as far as they depend on units of earlier blocks."""

_relu_backward = torch.ops.aten.threshold_backward.default


class AutoregressiveInverse(NamedTuple):
    """Solves ``y_i = T(x_i; theta_i(x_1, ..., x_{i-1}))`` for x, where a masked network with ReLU computes theta.

    Attributes:
        inverse: The transform's inverse.
        formula: The same as :meth:`run`, in operations that autograd differentiates to any order.
        edges: For each layer of units, inputs first: the number of units of a degree below p, for p from 0 to D.
        params_per_element: Number of outputs per element.
    """

    inverse: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    formula: Callable[..., tuple[Tensor, Tensor]]
    edges: Sequence[Sequence[int]]
    params_per_element: int

    def run(self, y: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Return x and the log-determinant of the inverse.

        Arguments:
            y: The values, ``(B, D)``.
            tensors: The masked weights of the layers, their biases, and the conditions' contribution to the first
                layer, if there is one; each of its rows may serve several samples.
        """
        if needs_grad(y, *tensors):
            return _AutoregressiveInverse.apply(self, y, *tensors)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(y, tensors)[:2]

    def evaluate(self, y: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Return x, the log-determinant, all units ``(units, B)``, and the parameters ``(D, P, B)``."""
        weights, biases, given = self.unflatten(tensors)
        units, params = self._start(y, biases, given)
        last = self._by_place(weights[-1]).contiguous()
        values, log_det = y.t().contiguous(), y.new_zeros(y.shape[0])
        for start, stop in _blocks(y.shape[1]):
            for layer, own, seen in self._spans(start, stop, 0, start):
                units[layer][own].addmm_(weights[layer - 1][own, seen], units[layer - 1][seen])
            seen = slice(0, self.edges[-1][start])
            params[start:stop].flatten(0, 1).addmm_(last[start:stop, :, seen].flatten(0, 1), units[-1][seen])
            for place in range(start, stop):
                for layer, own, seen in self._spans(place, place + 1, start, place + 1):
                    units[layer][own].addmm_(weights[layer - 1][own, seen], units[layer - 1][seen]).relu_()
                seen = slice(self.edges[-1][start], self.edges[-1][place + 1])
                params[place].addmm_(last[place, :, seen], units[-1][seen])
                x, more = self.inverse(values[place, :, None], params[place].t()[:, :, None])
                units[0][place] = x[:, 0]
                log_det += more
        return units[0].t().contiguous(), log_det, units, params

    def backward(
        self, y: Tensor, tensors: Tensors, units: Sequence[Tensor], params: Tensor, grad_outputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the gradients of ``y`` and of the tensors."""
        weights, _, given = self.unflatten(tensors)
        last = self._by_place(weights[-1]).contiguous()
        y_slopes, slopes, y_grad, params_grad = self._slopes(y, params, grad_outputs[1])
        grads = [grad_outputs[0].t().contiguous(), *map(torch.zeros_like, units[1:])]
        for start, stop in reversed(list(_blocks(y.shape[1]))):
            for place in reversed(range(start, stop)):
                params_grad[place].addcmul_(slopes[place], grads[0][place])
                seen = slice(self.edges[-1][start], self.edges[-1][place + 1])
                grads[-1][seen].addmm_(last[place, :, seen].t(), params_grad[place])
                for layer, own, seen in self._spans(place, place + 1, start, place + 1)[::-1]:
                    grad = grads[layer][own]
                    grad.copy_(_relu_backward(grad, units[layer][own], 0))
                    grads[layer - 1][seen].addmm_(weights[layer - 1][own, seen].t(), grad)
            seen = slice(0, self.edges[-1][start])
            grads[-1][seen].addmm_(last[start:stop, :, seen].flatten(0, 1).t(), params_grad[start:stop].flatten(0, 1))
            for layer, own, seen in self._spans(start, stop, 0, start):
                grads[layer - 1][seen].addmm_(weights[layer - 1][own, seen].t(), grads[layer][own])
        y_grad.addcmul_(y_slopes, grads[0])
        grads.append(params_grad.transpose(0, 1).flatten(0, 1))
        found = [grad @ read.t() for grad, read in zip(grads[1:], units, strict=True)]
        found += [grad.sum(1) for grad in grads[1:]]
        found += [self._by_sample(grads[1], part).sum(1).t() for part in given]
        return [y_grad.t(), *found]

    def _start(self, y: Tensor, biases: Tensors, given: Tensors) -> tuple[list[Tensor], Tensor]:
        """Return all units and the parameters, as far as they depend on nothing but biases and conditions."""
        rows, size = y.shape
        units = [y.new_empty(size, rows)]
        for bias in biases[:-1]:
            units.append(y.new_empty(bias.shape[0], rows).copy_(bias[:, None]))
        for part in given:
            self._by_sample(units[1], part).add_(part.t()[:, None])
        params = y.new_empty(size, self.params_per_element, rows)
        return units, params.copy_(self._by_place(biases[-1])[:, :, None])

    def _spans(self, first: int, end: int, start: int, stop: int) -> list[tuple[int, slice, slice]]:
        """Return hidden layers with their units of some degrees, and the units of the layer before of other degrees.

        Arguments:
            first: The lowest degree of the own units.
            end: One more than their highest.
            start: The lowest degree of the layer before.
            stop: One more than its highest.
        """
        edges = self.edges
        return [
            (
                layer,
                slice(edges[layer][first], edges[layer][end]),
                slice(edges[layer - 1][start], edges[layer - 1][stop]),
            )
            for layer in range(1, len(edges))
            if edges[layer][end] > edges[layer][first]
        ]

    def _slopes(self, y: Tensor, params: Tensor, log_det_grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the derivatives of x by y and by its parameters, and the gradients that the log-determinant brings.

        Each element depends on its own parameters alone, so one sum has the derivatives of all.
        """
        leaves = y.detach().requires_grad_(), params.permute(2, 1, 0).detach().requires_grad_()
        with torch.enable_grad():
            x, log_det = self.inverse(*leaves)
        found: list[Tensor] = []
        for output, grad in ((x, torch.ones_like(x)), (log_det, log_det_grad)):
            if output.requires_grad:
                some = torch.autograd.grad(output, leaves, grad, retain_graph=True, allow_unused=True)
                grads = [torch.zeros_like(leaf) if own is None else own for own, leaf in zip(some, leaves, strict=True)]
            else:  # such as the log-determinant of a shift
                grads = [torch.zeros_like(leaf) for leaf in leaves]
            found += [grads[0].t().contiguous(), grads[1].permute(2, 1, 0).contiguous()]
        return found[0], found[1], found[2], found[3]

    def unflatten(self, tensors: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """Return weights, biases, and the conditions' contribution."""
        layers = len(self.edges)
        return tensors[:layers], tensors[layers : 2 * layers], tensors[2 * layers :]

    def _by_sample(self, units: Tensor, given: Tensor) -> Tensor:
        """Return the units with an axis of samples before the axis of the conditions' rows."""
        samples: Tensor = torch.unflatten(units, 1, (units.shape[1] // max(1, given.shape[0]), given.shape[0]))
        return samples

    def _by_place(self, tensor: Tensor) -> Tensor:
        """Return the last layer's weights or biases with an axis of places first."""
        by_place: Tensor = torch.unflatten(tensor, 0, (self.params_per_element, -1)).transpose(0, 1)
        return by_place


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, _BLOCK):
        yield start, min(start + _BLOCK, size)


class _AutoregressiveInverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: AutoregressiveInverse, y: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det, units, params = kernel.evaluate(y, tensors)
        ctx.kernel, ctx.count = kernel, len(tensors)
        ctx.save_for_backward(y, *tensors, *units, params)
        return x, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        y, *others = ctx.saved_tensors
        tensors = tuple(others[: ctx.count])
        if not is_first_order(*grad_outputs):
            return None, *differentiate(ctx.kernel.formula, (y, *tensors), grad_outputs)
        *units, params = others[ctx.count :]
        return None, *ctx.kernel.backward(y, tensors, units, params, grad_outputs)
