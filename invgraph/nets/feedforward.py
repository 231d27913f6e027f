"""Subnets that keep data and conditions apart: first layer ``W_x x + W_c c``, last layer zero."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.core.subnet import Subnet, SubnetFactory, add_share, spread_vector
from invgraph.errors import GraphError
from invgraph.fused.dispatch import PLAIN
from invgraph.fused.mlp import Dense
from invgraph.nets.convolution import CONVOLUTIONS
from invgraph.nets.entry import require_odd, require_size, start
from invgraph.shapes import Shape, Tensors


class _Dense(Subnet):
    """Fully connected layers with ReLU between them."""

    broadcasts = True

    def __init__(self, channels_in: int, cond_shapes: tuple[Shape, ...], hidden: tuple[int, ...], out: int) -> None:
        super().__init__()
        sizes = (channels_in, *hidden, out)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.conditions = nn.ModuleList(nn.Linear(shape[0], sizes[1], bias=False) for shape in cond_shapes)
        for layer in (*self.layers, *self.conditions):
            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])

    def share(self, cs: Tensors) -> Tensors:
        if not cs:
            return ()
        first, *_ = self.layers
        total: Tensor = cast(nn.Linear, first).bias
        for layer, c in zip(self.conditions, cs, strict=True):
            total = torch.addmm(total, c, cast(nn.Linear, layer).weight.t())
        return (total,)

    def combine(self, x: Tensor, shared: Tensors) -> Tensor:
        first, *others = self.layers
        h: Tensor = _plus_share(x, cast(nn.Linear, first), shared[0]) if shared else first(x)
        for layer in others:
            h = layer(torch.relu_(h))
        return h

    def dense(self) -> Dense | None:
        # Asked at every call of every coupling: attributes of modules would take as long as all the rest.
        children: Any = self._modules
        layers, given = children["layers"]._modules.values(), children["conditions"]._modules.values()
        if _is_more_than(self, _Dense):
            return None
        for layer in (*layers, *given):
            if _is_more_than(layer, nn.Linear):
                return None
        tensors = [vars(layer)["_parameters"] for layer in layers]
        weights, biases = tuple([own["weight"] for own in tensors]), tuple([own["bias"] for own in tensors])
        net = Dense(weights, biases, tuple([vars(layer)["_parameters"]["weight"] for layer in given]))
        for tensor in net.tensors:
            if type(tensor) not in PLAIN:  # a bias may be None, too
                return None
        return net


def _is_more_than(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling the module does something else than its class does: a subclass, parametrized, with hooks."""
    if type(module) is not kind:
        return True
    own = vars(module)
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks)


class _Convolutional(Subnet):
    """Convolutions of one kernel size, zero-padded to keep the spatial size, with ReLU between them."""

    broadcasts = True

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], hidden: tuple[int, ...], out: int, kernel: int
    ) -> None:
        super().__init__()
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
            start(cast(nn.Linear, layer), zero=layer is self.layers[-1])

    def share(self, cs: Tensors) -> Tensors:
        total: Tensor | None = None
        ndim = cast(Tensor, self.layers[0].weight).ndim
        for layer, c in zip(self.conditions, cs, strict=True):
            part = spread_vector(layer(c), ndim)
            total = part if total is None else total + part
        return () if total is None else (total,)

    def combine(self, x: Tensor, shared: Tensors) -> Tensor:
        first, *others = self.layers
        h: Tensor = add_share(first(x), shared[0]) if shared else first(x)
        for layer in others:
            h = layer(torch.relu_(h))
        return h


def _plus_share(x: Tensor, layer: nn.Linear, share: Tensor) -> Tensor:
    """``W x`` plus the conditions' share, which holds the bias already."""
    if share.shape[0] == x.shape[0]:
        return torch.addmm(share, x, layer.weight.t())
    return add_share(x @ layer.weight.t(), share)


@dataclass(frozen=True)
class MLP(SubnetFactory):
    """Fully connected subnets for vectors: ``layers`` hidden layers of ``hidden`` units, ReLU.

    The paper's MNIST subnet is ``MLP(hidden=512)``. Xavier start, last layer zero (paper, 3.4).

    Arguments:
        hidden: width of the hidden layers.
        layers: how many hidden layers.

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.MLP(hidden=16)(4, 6)
        >>> net(torch.zeros(2, 4)).shape
        torch.Size([2, 6])
    """

    hidden: int
    layers: int = 1

    def __post_init__(self) -> None:
        require_size("MLP", "hidden", self.hidden)
        require_size("MLP", "layers", self.layers)

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

    Conditions of the data's spatial size go through a convolution of their own, vectors are added at every position.
    Xavier start, last layer zero (paper, 3.4).

    Arguments:
        hidden: channels of the hidden layers.
        kernel: size of the kernels, odd.
        layers: how many hidden layers.

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
        require_size("ConvNet", "hidden", self.hidden)
        require_size("ConvNet", "layers", self.layers)
        require_odd("ConvNet", self.kernel)

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        if not 2 <= len(x_shape) <= 4:
            advice = "ConvNet works on signals (C, L), images (C, H, W) and volumes; for vectors use nets.MLP"
            raise GraphError("ConvNet", f"data of shape {x_shape}", advice)
        return _Convolutional(x_shape, cond_shapes, (self.hidden,) * self.layers, channels_out, self.kernel)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        return self.build((channels_in, 1, 1), (), channels_out)
