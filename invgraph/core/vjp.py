"""One node of a backward pass that stores nothing: its inputs rebuilt, and its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from invgraph.shapes import Tensors

if TYPE_CHECKING:
    from invgraph.core.invertible import Invertible

Slopes = Sequence[Tensor | None]
"""Gradients of the loss; None stands for zero."""


class Undone(NamedTuple):
    """What undoing a layer gives: its inputs, and the gradients of inputs and conditions."""

    values: Tensors
    slopes: Slopes
    conditions: Slopes


class Gradients:
    """The gradients of parameters that a backward pass has found so far."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._found: dict[int, Tensor | None] = {id(parameter): None for parameter in parameters}

    def wanted(self, module: nn.Module) -> Tensors:
        """The module's parameters whose gradient is asked for."""
        return tuple(parameter for parameter in module.parameters() if self.wants(parameter))

    def wants(self, parameter: Tensor) -> bool:
        """Whether the parameter's gradient is asked for."""
        return id(parameter) in self._found

    def add(self, parameters: Tensors, slopes: Slopes) -> None:
        """Add one node's share."""
        for parameter, slope in zip(parameters, slopes, strict=True):
            before = self._found[id(parameter)]
            self._found[id(parameter)] = added(before, slope)

    def of(self, parameter: Tensor) -> Tensor | None:
        """The gradient of a parameter; None where nothing depends on it."""
        return self._found[id(parameter)]


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two gradients, None standing for zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def pull(outputs: Sequence[Tensor], slopes: Slopes, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the leaves from those of the outputs; None where there is no way from one to the other."""
    pairs = [(y, slope) for y, slope in zip(outputs, slopes, strict=True) if slope is not None and y.requires_grad]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not pairs or not wanted:
        return [None] * len(leaves)
    found = iter(torch.autograd.grad([y for y, _ in pairs], wanted, [slope for _, slope in pairs], allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


def leaf(value: Tensor) -> Tensor:
    """The value by itself, ready to have its gradient taken."""
    return value.detach().requires_grad_()


def undo(layer: Invertible, ys: Tensors, cs: Tensors, slopes: Slopes, gradients: Gradients, *, inverse: bool) -> Undone:
    """A layer's inputs from its outputs, and the gradients; the layer's own, faster way where it has one.

    Arguments:
        layer: the layer.
        ys: what it returned.
        cs: its conditions, leaves.
        slopes: gradients of its outputs and log-determinant.
        gradients: where those of its parameters are added.
        inverse: whether it was the inverse that was called.
    """
    done = layer._undo(ys, cs, slopes, gradients, inverse=inverse)
    if done is not None:
        return done
    with torch.no_grad():
        xs, _ = layer(ys, cs) if inverse else layer.inverse(ys, cs)
    return again(layer, xs, cs, slopes, gradients, inverse=inverse)


def again(
    layer: Invertible, xs: Tensors, cs: Tensors, slopes: Slopes, gradients: Gradients, *, inverse: bool
) -> Undone:
    """The gradients of a layer, run again from its inputs."""
    leaves = tuple(leaf(x) for x in xs)
    parameters = gradients.wanted(layer)
    with torch.enable_grad():
        outputs, log_det = layer.inverse(leaves, cs) if inverse else layer(leaves, cs)
    found = pull((*outputs, log_det), slopes, (*leaves, *cs, *parameters))
    gradients.add(parameters, found[len(leaves) + len(cs) :])
    return Undone(xs, found[: len(leaves)], found[len(leaves) : len(leaves) + len(cs)])
