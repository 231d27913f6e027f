"""Vision-transformer subnets, as in Jet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from invgraph.core.given import add_rows
from invgraph.core.subnet import Subnet, SubnetFactory
from invgraph.errors import GraphError
from invgraph.nets.entry import check_sizes, require_spatial
from invgraph.nets.initial_weights import initialize
from invgraph.nets.transformer import Block, LayerNorm
from invgraph.numerics.patches import from_patches, grid, patch_size, to_patches
from invgraph.shapes import Shape, Tensors


class _ViT(Subnet):
    """Vision transformer whose tokens are embedded patches of data and conditions."""

    broadcasts = True

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], width: int, depth: int, heads: int, patch: int, out: int
    ) -> None:
        super().__init__()
        self.patch, self.out_shape = patch, (out, *x_shape[1:])
        tokens = math.prod(grid("ViT", x_shape, patch))
        self.data = initialize(nn.Linear(patch_size(x_shape, patch), width))
        sizes = (shape[0] if len(shape) == 1 else patch_size(shape, patch) for shape in cond_shapes)
        self.conditions = nn.ModuleList(initialize(nn.Linear(size, width, bias=False)) for size in sizes)
        self.position = nn.Parameter(torch.empty(tokens, width))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)), LayerNorm(width))
        self.last = initialize(nn.Linear(width, patch_size(self.out_shape, patch)), zero=True)

    def precompute(self, cs: Tensors) -> Tensors:
        total: Tensor = self.position
        for layer, c in zip(self.conditions, cs, strict=True):
            total = total + layer(c.unsqueeze(1) if c.ndim == 2 else to_patches(c, self.patch))
        return (total,) if cs else ()

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        h = cast(Tensor, self.data(to_patches(x, self.patch)))
        h = add_rows(h, given[0]) if given else h + self.position
        return from_patches(cast(Tensor, self.last(self.blocks(h))), self.out_shape, self.patch)


@dataclass(frozen=True)
class ViT(SubnetFactory):
    """Vision-transformer subnets for signals, images and volumes of fixed size.

    ``Coupling(transform=Affine(), subnet=nets.ViT(width=256, depth=4))`` is the coupling of Jet. Patches are embedded
    linearly, learned position embeddings are added, and pre-norm transformer blocks follow. Conditions of the data's
    spatial size are cut into patches as well; vectors are added to every token. Weights are Xavier-initialized, those
    of the last layer are zero.

    Arguments:
        width: Width of the tokens, a multiple of ``heads``.
        depth: Number of transformer blocks. Default: 4.
        heads: Number of attention heads. Default: 4.
        patch: Edge length of the patches, which must divide the spatial sizes. Default: 2.

    Raises:
        GraphError: If an argument is out of range, or the data are vectors or of sizes that are not divisible.
        ArgumentError: If an argument is not an int.

    References:
        A. Kolesnikov, A. S. Pinto, M. Tschannen, "Jet: A Modern Transformer-Based Normalizing Flow", 2024,
        https://arxiv.org/abs/2412.15129; A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020,
        https://arxiv.org/abs/2010.11929

    Example:
        >>> import torch, invgraph as ig
        >>> subnet = ig.nets.ViT(width=16, depth=2, heads=2, patch=2)
        >>> layer = ig.Coupling((4, 8, 8), ((10,),), transform=ig.Affine(), subnet=subnet)
        >>> (y,), log_det = layer((torch.zeros(2, 4, 8, 8),), (torch.zeros(2, 10),))
        >>> y.shape
        torch.Size([2, 4, 8, 8])
    """

    width: int
    depth: int = 4
    heads: int = 4
    patch: int = 2

    def __post_init__(self) -> None:
        check_sizes(self, "width", "depth", "heads", "patch")
        if self.width % self.heads:
            raise GraphError("ViT", f"width={self.width}, heads={self.heads}", "width must be a multiple of heads")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        require_spatial("ViT", x_shape)
        return _ViT(x_shape, cond_shapes, self.width, self.depth, self.heads, self.patch, channels_out)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        advice = "it must know the data's shape: pass it as subnet= to a layer, or call build()"
        raise GraphError("ViT", f"channels {channels_in} -> {channels_out} alone", advice)
