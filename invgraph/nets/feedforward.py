"""Fully connected and convolutional subnets: first layer ``W_x x + W_c c``, last layer zero."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from invgraph.core.known_shape import shape_after
from invgraph.core.subnet import Subnet, SubnetFactory
from invgraph.errors import GraphError
from invgraph.fused.in_place import relu_after
from invgraph.fused.replaceable import Linears, register
from invgraph.nets.convolution import CONVOLUTIONS
from invgraph.nets.entry import add_conditions, check_sizes, sum_of_conditions, sum_shape
from invgraph.nets.initial_weights import initialize
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import is_untouched


class _Layers(Subnet):
    """Layers with ReLU between them, and a layer for each condition, which is added to the first one's output."""

    broadcasts = True
    layers: nn.ModuleList
    conditions: nn.ModuleList

    def known_shape(self, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> Shape | None:
        if not is_untouched(self, Subnet.forward):
            return None
        first = sum_shape(self.layers[0], self.conditions, x_shape, cond_shapes)
        return None if first is None else shape_after(self.layers[1:], first)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        return run_layers(self.layers, x, given)


class _Dense(_Layers):
    """Fully connected layers with ReLU between them."""

    def __init__(self, channels_in: int, cond_shapes: tuple[Shape, ...], hidden: tuple[int, ...], out: int) -> None:
        super().__init__()
        sizes = (channels_in, *hidden, out)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.conditions = nn.ModuleList(nn.Linear(shape[0], sizes[1], bias=False) for shape in cond_shapes)
        for layer in (*self.layers, *self.conditions):
            initialize(cast(nn.Linear, layer), zero=layer is self.layers[-1])

    def precompute(self, cs: Tensors) -> Tensors:
        return sum_of_conditions(self.conditions, cs, 2)


def _linears(network: nn.Module) -> Linears:
    assert isinstance(network, _Dense)
    return network.layers, network.conditions


register(_Dense, _linears)


def run_layers(layers: nn.ModuleList, x: Tensor, given: Tensors) -> Tensor:
    """Run layers with ReLU between them; the contribution of the conditions is added to the first one's output."""
    before, *others = layers
    h = add_conditions(before, before(x), given)
    for layer in others:
        h = layer(relu_after(before, h))
        before = layer
    return h


class _Convolutional(_Layers):
    """Convolutions of one kernel size, zero-padded to keep the spatial size, with ReLU between them."""

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], hidden: tuple[int, ...], out: int, kernel: int
    ) -> None:
        super().__init__()
        self.rank = len(x_shape)
        sizes = (x_shape[0], *hidden, out)
        convolution = CONVOLUTIONS[len(x_shape) - 2]
        pad = kernel // 2
        self.layers = nn.ModuleList(convolution(a, b, kernel, padding=pad) for a, b in pairwise(sizes))
        self.conditions = nn.ModuleList(
            nn.Linear(shape[0], sizes[1], bias=False)
            if len(shape) == 1
            else convolution(shape[0], sizes[1], kernel, padding=pad, bias=False)
            for shape in cond_shapes
        )
        for layer in (*self.layers, *self.conditions):
            initialize(cast(nn.Linear, layer), zero=layer is self.layers[-1])

    def precompute(self, cs: Tensors) -> Tensors:
        return sum_of_conditions(self.conditions, cs, self.rank + 1)


@dataclass(frozen=True)
class MLP(SubnetFactory):
    """Fully connected subnets for vectors: ``layers`` hidden layers of ``hidden`` units, ReLU.

    The paper's MNIST subnet is ``MLP(hidden=512)``. Weights are Xavier-initialized, those of the last layer are zero
    (paper, 3.4).

    Arguments:
        hidden: Width of the hidden layers.
        layers: Number of hidden layers. Default: 1.

    Raises:
        GraphError: If an argument is out of range, or data or conditions are not vectors.
        ArgumentError: If an argument is not an int.

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.MLP(hidden=16)(4, 6)
        >>> net(torch.zeros(2, 4)).shape
        torch.Size([2, 6])
    """

    hidden: int
    layers: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "layers")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        for kind, shape in (("data", x_shape), *(("a condition", shape) for shape in cond_shapes)):
            if len(shape) != 1:
                advice = "MLP works on vectors (C,): put a Flatten before the layer, or use nets.ConvNet"
                raise GraphError("MLP", f"{kind} of shape {shape}", advice)
        return _Dense(x_shape[0], cond_shapes, (self.hidden,) * self.layers, channels_out)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        return self.build((channels_in,), (), channels_out)


@dataclass(frozen=True)
class ConvNet(SubnetFactory):
    """Convolutional subnets for signals, images and volumes: ``layers`` hidden convolutions, ReLU.

    Each condition of the data's spatial size has its own first convolution; vectors are added at every position.
    Weights are Xavier-initialized, those of the last layer are zero (paper, 3.4).

    Arguments:
        hidden: Number of channels of the hidden layers.
        kernel: Kernel size, odd. Default: 3.
        layers: Number of hidden layers. Default: 1.

    Raises:
        GraphError: If an argument is out of range, or the data are vectors.
        ArgumentError: If an argument is not an int.

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.ConvNet(hidden=16)(4, 6)
        >>> net(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 8, 8])
    """

    hidden: int
    kernel: int = 3
    layers: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "layers", "kernel")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        if not 2 <= len(x_shape) <= 4:
            advice = "ConvNet works on signals (C, L), images (C, H, W) and volumes; for vectors use nets.MLP"
            raise GraphError("ConvNet", f"data of shape {x_shape}", advice)
        return _Convolutional(x_shape, cond_shapes, (self.hidden,) * self.layers, channels_out, self.kernel)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        return self.build((channels_in, 1, 1), (), channels_out)
