"""Vector-Jacobian products of one layer, for a backward pass that stores no activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from invgraph.core.call import TwoWay, call_checked
from invgraph.core.sides import Side
from invgraph.fused.affine import AffineCoupling
from invgraph.shapes import Tensors
from invgraph.torch_internals import tensor_stores
from invgraph.transforms.transform import Direction

Grads = Sequence[Tensor | None]
"""Gradients of the loss; None stands for zero."""


class LayerGrads(NamedTuple):
    """A layer's inputs, rebuilt from its outputs, and the gradients of its inputs and conditions."""

    inputs: Tensors
    input_grads: Grads
    condition_grads: Grads


class ParameterGrads:
    """The gradients of parameters, summed over the layers of a backward pass.

    Arguments:
        parameters: The parameters that need a gradient.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._found: dict[int, Tensor | None] = {id(parameter): None for parameter in parameters}

    def needed(self, module: nn.Module) -> Tensors:
        """Return those parameters of a module that need a gradient."""
        found = {id(tensor): tensor for store in tensor_stores(module.modules()) for tensor in store.values()}
        return tuple([tensor for key, tensor in found.items() if key in self._found])

    def add(self, parameters: Tensors, grads: Grads) -> None:
        """Add the gradients that one layer contributes."""
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:  # of a parameter that needs none there is none
                before = self._found[id(parameter)]
                self._found[id(parameter)] = grad if before is None else before + grad

    def of_kernel(
        self, kernel: AffineCoupling, y: Tensor, cs: Tensors, grad_outputs: Grads, *, inverse: bool
    ) -> LayerGrads:
        """Let a kernel rebuild and differentiate a layer, and add the gradients of its parameters.

        Arguments:
            kernel: The kernel.
            y: The output of the call.
            cs: The conditions.
            grad_outputs: The gradients of the output and of the log-determinant.
            inverse: True if the inverse was called.
        """
        wanted = [*[c.requires_grad for c in cs], *[id(parameter) in self._found for parameter in kernel.parameters]]
        y_grad = torch.zeros_like(y) if grad_outputs[0] is None else grad_outputs[0]
        log_det_grad = y.new_zeros(y.shape[0]) if grad_outputs[1] is None else grad_outputs[1]
        x, x_grad, found = kernel.backward_from_outputs(y, cs, (y_grad, log_det_grad), wanted, inverse=inverse)
        self.add(kernel.parameters, found[len(cs) :])
        return LayerGrads((x,), (x_grad,), found[: len(cs)])

    def of(self, parameters: Tensors) -> list[Tensor | None]:
        """Return the gradients of parameters; None for one that needs none, or that nothing depends on."""
        return [self._found.get(id(parameter)) for parameter in parameters]


def add_grads(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, where None stands for zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def vjp(outputs: Sequence[Tensor], grad_outputs: Grads, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradients of the leaves; None for a leaf that the outputs do not depend on."""
    ys: list[Tensor] = []
    grads: list[Tensor] = []
    for y, grad in zip(outputs, grad_outputs, strict=True):
        if grad is not None and y.requires_grad:
            ys.append(y)
            grads.append(grad)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not ys or not wanted:
        return [None] * len(leaves)
    found = iter(torch.autograd.grad(ys, wanted, grads, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


def as_leaf(value: Tensor) -> Tensor:
    """Return the value, detached and ready to have its gradient taken."""
    return value.detach().requires_grad_()


class Replayed(TwoWay):
    """Base class of :class:`~invgraph.Invertible`: its vector-Jacobian products, from the outputs of a call."""

    def _vjp_from_outputs(
        self, ys: Tensors, cs: Tensors, grad_outputs: Grads, grads: ParameterGrads, *, inverse: bool
    ) -> LayerGrads:
        """Rebuild the inputs of a call from its outputs, and return the gradients; a layer may know a cheaper way.

        Arguments:
            ys: The outputs of the call.
            cs: The conditions; leaves where they need a gradient.
            grad_outputs: The gradients of the outputs and of the log-determinant.
            grads: Where the gradients of the parameters are added.
            inverse: True if the inverse was called.
        """
        with torch.no_grad():
            xs, _ = call_checked(self, ys, cs, inverse=not inverse)
        return vjp_from_inputs(self, xs, cs, grad_outputs, grads, inverse=inverse)


def vjp_from_inputs(
    layer: TwoWay, xs: Tensors, cs: Tensors, grad_outputs: Grads, grads: ParameterGrads, *, inverse: bool
) -> LayerGrads:
    """Run a call of a layer again from its inputs, with gradients.

    Arguments:
        layer: The layer.
        xs: The inputs of the call.
        cs: The conditions; leaves where they need a gradient.
        grad_outputs: The gradients of the outputs and of the log-determinant.
        grads: Where the gradients of the parameters are added.
        inverse: True if the inverse was called.
    """
    leaves, parameters = tuple([as_leaf(x) for x in xs]), grads.needed(layer)
    with torch.enable_grad():
        outputs, log_det = call_checked(layer, leaves, cs, inverse=inverse)
    found = vjp((*outputs, log_det), grad_outputs, (*leaves, *cs, *parameters))
    grads.add(parameters, found[len(leaves) + len(cs) :])
    return LayerGrads(xs, found[: len(leaves)], found[len(leaves) : len(leaves) + len(cs)])


def vjp_of_coupling(
    sides: Sequence[Side],
    networks: nn.ModuleList,
    params_of: Callable[[int, Tensor, Tensors], Tensor],
    sizes: list[int],
    y: Tensor,
    cs: Tensors,
    grad_outputs: Grads,
    grads: ParameterGrads,
    *,
    inverse: bool,
) -> LayerGrads:
    """Rebuild a coupling's input and differentiate it; the networks run once for both.

    Arguments:
        sides: The sides, in the order in which the forward direction transforms them.
        networks: The networks of each side.
        params_of: Returns the parameters of a side, from its place, the other part and the conditions.
        sizes: Channels of the two parts.
        y: The output of the call.
        cs: The conditions; leaves where they need a gradient.
        grad_outputs: The gradients of the output and of the log-determinant.
        grads: Where the gradients of the parameters are added.
        inverse: True if the inverse was called.
    """
    parts = list(torch.split_with_sizes(y, sizes, dim=1))
    whole = torch.zeros_like(y) if grad_outputs[0] is None else grad_outputs[0]
    part_grads = list(torch.split_with_sizes(whole, sizes, dim=1))
    condition_grads: list[Tensor | None] = [None] * len(cs)
    for place in range(len(sides))[:: 1 if inverse else -1]:  # the side that was transformed last comes first
        part, _, transform = sides[place]
        directions: tuple[Direction, Direction] = (transform.forward, transform.inverse)
        onward, back = directions[inverse], directions[not inverse]
        read = as_leaf(parts[1 - part])
        with torch.enable_grad():
            params = params_of(place, read, cs)
        parts[part], _ = back(parts[part], params.detach())
        written = as_leaf(parts[part])
        with torch.enable_grad():
            outputs = onward(written, params)
        parameters = grads.needed(networks[place])
        found = vjp(outputs, (part_grads[part], grad_outputs[1]), (written, read, *cs, *parameters))
        written_grad, read_grad, *others = found
        assert written_grad is not None
        part_grads[part] = written_grad
        part_grads[1 - part] = part_grads[1 - part] if read_grad is None else part_grads[1 - part] + read_grad
        condition_grads = [add_grads(a, b) for a, b in zip(condition_grads, others[: len(cs)], strict=True)]
        grads.add(parameters, others[len(cs) :])
    return LayerGrads((torch.cat(parts, dim=1),), (torch.cat(part_grads, dim=1),), condition_grads)
