"""Subnets of gated convolutions and attention, as in Flow++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from invgraph.core.given import Precomputed
from invgraph.core.subnet import Subnet, SubnetFactory
from invgraph.errors import GraphError
from invgraph.nets.entry import Entry, check_sizes, require_spatial
from invgraph.nets.initial_weights import Affine, affine, initialize
from invgraph.nets.transformer import Attention, LayerNorm
from invgraph.shapes import Shape, Tensors


class _GatedBlock(nn.Module):
    """Gated convolution, then gated attention between positions, each added to its input and normalized."""

    def __init__(self, rank: int, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.first = affine(rank, width, width, kernel)
        self.gates = nn.ModuleList(affine(rank, width, 2 * width) for _ in range(2))
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads)

    def forward(self, h: Tensor) -> Tensor:
        h = self._norm(0, h + self._gate(0, silu(self.first(silu(h)))))
        seen = self.attention(h.flatten(2).transpose(1, 2)).transpose(1, 2)
        return self._norm(1, h + self._gate(1, seen.reshape(h.shape)))

    def _gate(self, index: int, h: Tensor) -> Tensor:
        value, gate = self.gates[index](h).chunk(2, dim=1)
        gated: Tensor = value * torch.sigmoid(gate)
        return gated

    def _norm(self, index: int, h: Tensor) -> Tensor:
        normed: Tensor = self.norms[index](h.movedim(1, -1)).movedim(-1, 1)
        return normed


class _GatedAttention(Subnet):
    broadcasts = True

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], width: int, blocks: int, heads: int, kernel: int, out: int
    ) -> None:
        super().__init__()
        rank = len(x_shape)
        self.entry = Entry(x_shape, cond_shapes, width, kernel)
        self.position = nn.Parameter(torch.empty(width, *x_shape[1:]))
        nn.init.normal_(self.position, std=0.01)
        self.blocks = nn.Sequential(*(_GatedBlock(rank, width, heads, kernel) for _ in range(blocks)))
        self.last: Affine = initialize(affine(rank, width, out, kernel), zero=True)

    def precompute(self, cs: Tensors) -> Tensors:
        return self.entry.prepare(cs)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        h = self.blocks(self.entry(x, Precomputed(given)) + self.position)
        return cast(Tensor, self.last(h))


@dataclass(frozen=True)
class GatedAttention(SubnetFactory):
    """Gated convolutions and self-attention between all positions, for signals, images and volumes of fixed size.

    Each block is a gated convolution and gated attention, with layer norms over the channels of each position. Weights
    are Xavier-initialized, those of the last layer are zero. The memory of attention is quadratic in the number of
    positions, so use it at low resolutions.

    Arguments:
        hidden: Number of channels, a multiple of ``heads``.
        blocks: Number of blocks. Default: 2.
        heads: Number of attention heads. Default: 4.
        kernel: Kernel size, odd. Default: 3.

    Raises:
        GraphError: If an argument is out of range, or the data are vectors.
        ArgumentError: If an argument is not an int.

    References:
        J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, "Flow++: Improving Flow-Based Generative Models with
        Variational Dequantization and Architecture Design", 2019, https://arxiv.org/abs/1902.00275

    Example:
        >>> import torch, invgraph as ig
        >>> subnet = ig.nets.GatedAttention(hidden=8, heads=2)
        >>> layer = ig.Coupling((4, 8, 8), ((3,),), transform=ig.Affine(), subnet=subnet)
        >>> (y,), log_det = layer((torch.zeros(2, 4, 8, 8),), (torch.zeros(2, 3),))
        >>> y.shape
        torch.Size([2, 4, 8, 8])
    """

    hidden: int
    blocks: int = 2
    heads: int = 4
    kernel: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "blocks", "heads", "kernel")
        if self.hidden % self.heads:
            given = f"hidden={self.hidden}, heads={self.heads}"
            raise GraphError("GatedAttention", given, "hidden must be a multiple of heads")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        require_spatial("GatedAttention", x_shape)
        return _GatedAttention(x_shape, cond_shapes, self.hidden, self.blocks, self.heads, self.kernel, channels_out)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        advice = "it must know the data's shape: pass it as subnet= to a layer, or call build()"
        raise GraphError("GatedAttention", f"channels {channels_in} -> {channels_out} alone", advice)
