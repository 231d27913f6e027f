"""Residual subnets, for vectors and for signals, images and volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import silu

from invgraph.core.given import Precomputed
from invgraph.core.known_shape import known_shape, shape_after
from invgraph.core.subnet import Subnet, SubnetFactory
from invgraph.errors import GraphError
from invgraph.nets.entry import Entry, check_sizes, require_spatial
from invgraph.nets.initial_weights import affine, initialize
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import is_untouched


class ResidualBlock(nn.Module):
    """Residual block ``h + W_2 silu(W_1 silu(h))``."""

    def __init__(self, rank: int, width: int, kernel: int = 1) -> None:
        super().__init__()
        self.first, self.second = (affine(rank, width, width, kernel) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.second(silu(self.first(silu(h))))
        return h + change


class _Residual(Subnet):
    """Entry layer, residual blocks, and a last layer initialized to zero."""

    broadcasts = True

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], width: int, blocks: int, out: int, kernel: int
    ) -> None:
        super().__init__()
        rank = len(x_shape)
        self.entry = Entry(x_shape, cond_shapes, width, kernel)
        self.blocks = nn.Sequential(*(ResidualBlock(rank, width, kernel) for _ in range(blocks)))
        self.last = initialize(affine(rank, width, out, kernel), zero=True)

    def precompute(self, cs: Tensors) -> Tensors:
        return self.entry.prepare(cs)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        h = self.blocks(self.entry(x, Precomputed(given)))
        return cast(Tensor, self.last(silu(h)))

    def known_shape(self, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> Shape | None:
        h = self.entry.known_shape(x_shape, cond_shapes)
        if h is None or not (is_untouched(self, Subnet.forward) and is_untouched(self.blocks, nn.Sequential.forward)):
            return None
        for block in cast("list[ResidualBlock]", list(self.blocks)):
            if not is_untouched(block, ResidualBlock.forward) or shape_after((block.first, block.second), h) != h:
                return None
        return known_shape(self.last, h)


@dataclass(frozen=True)
class ResidualMLP(SubnetFactory):
    """Fully connected residual subnets for vectors, with SiLU; they are smooth, so they suit an ODE's vector field.

    Weights are Xavier-initialized, those of the last layer are zero.

    Arguments:
        hidden: Width of the layers.
        blocks: Number of residual blocks, each of two layers. Default: 2.

    Raises:
        GraphError: If an argument is out of range, or data or conditions are not vectors.
        ArgumentError: If an argument is not an int.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", 2016,
        https://arxiv.org/abs/1603.05027

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.ResidualMLP(hidden=16)(4, 6)
        >>> net(torch.zeros(2, 4)).shape
        torch.Size([2, 6])
    """

    hidden: int
    blocks: int = 2

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "blocks")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        for kind, shape in (("data", x_shape), *(("a condition", shape) for shape in cond_shapes)):
            if len(shape) != 1:
                advice = "ResidualMLP works on vectors (C,): put a Flatten before the layer, or use ResidualConvNet"
                raise GraphError("ResidualMLP", f"{kind} of shape {shape}", advice)
        return _Residual(x_shape, cond_shapes, self.hidden, self.blocks, channels_out, kernel=1)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        return self.build((channels_in,), (), channels_out)


@dataclass(frozen=True)
class ResidualConvNet(SubnetFactory):
    """Convolutional residual subnets for signals, images and volumes, with SiLU.

    Weights are Xavier-initialized, those of the last layer are zero. There is no normalization, so samples of a batch
    are independent of each other.

    Arguments:
        hidden: Number of channels of the layers.
        blocks: Number of residual blocks, each of two convolutions. Default: 2.
        kernel: Kernel size, odd. Default: 3.

    Raises:
        GraphError: If an argument is out of range, or the data are vectors.
        ArgumentError: If an argument is not an int.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", 2016,
        https://arxiv.org/abs/1603.05027

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.ResidualConvNet(hidden=8)(4, 6)
        >>> net(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 8, 8])
    """

    hidden: int
    blocks: int = 2
    kernel: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "blocks", "kernel")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        require_spatial("ResidualConvNet", x_shape)
        return _Residual(x_shape, cond_shapes, self.hidden, self.blocks, channels_out, self.kernel)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        return self.build((channels_in, 1, 1), (), channels_out)
