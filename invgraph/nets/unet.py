"""U-Net subnets: a large receptive field at the cost of a few convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from invgraph.core.given import Precomputed
from invgraph.core.subnet import Subnet, SubnetFactory
from invgraph.errors import GraphError
from invgraph.nets.entry import Entry, check_sizes, require_spatial
from invgraph.nets.initial_weights import affine, initialize
from invgraph.nets.residual import ResidualBlock
from invgraph.shapes import Shape, Tensors


class _UNet(Subnet):
    """U-Net that downsamples by averaging, upsamples by repeating, and concatenates skip connections."""

    broadcasts = True

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], width: int, levels: int, out: int, kernel: int
    ) -> None:
        super().__init__()
        rank = len(x_shape)
        widths = [width * 2**level for level in range(levels + 1)]
        self.entry = Entry(x_shape, cond_shapes, width, kernel)
        self.down = nn.ModuleList(ResidualBlock(rank, w, kernel) for w in widths[:-1])
        self.widen = nn.ModuleList(affine(rank, w, 2 * w) for w in widths[:-1])
        self.bottom = ResidualBlock(rank, widths[-1], kernel)
        self.narrow = nn.ModuleList(affine(rank, 3 * w, w) for w in widths[:-1])
        self.up = nn.ModuleList(ResidualBlock(rank, w, kernel) for w in widths[:-1])
        self.last = initialize(affine(rank, width, out, kernel), zero=True)

    def precompute(self, cs: Tensors) -> Tensors:
        return self.entry.prepare(cs)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        h = self.entry(x, Precomputed(given))
        kept: list[Tensor] = []
        for block, widen in zip(self.down, self.widen, strict=True):
            h = block(h)
            kept.append(h)
            h = widen(_halve(h))
        h = self.bottom(h)
        for block, narrow, skip in zip(reversed(self.up), reversed(self.narrow), reversed(kept), strict=True):
            h = block(narrow(torch.cat((interpolate(h, scale_factor=2), skip), dim=1)))
        return cast(Tensor, self.last(silu(h)))


def _halve(h: Tensor) -> Tensor:
    """Average pairs of neighbors along every spatial axis (torch's pooling lacks some dtypes)."""
    for axis in range(2, h.ndim):
        h = torch.unflatten(h, axis, (-1, 2)).mean(axis + 1)
    return h


@dataclass(frozen=True)
class UNet(SubnetFactory):
    """U-Net subnets for signals, images and volumes whose sizes are divisible by ``2 ** levels``.

    Conditions are vectors or have the data's spatial size; the first layer reads them. Weights are Xavier-initialized,
    those of the last layer are zero.

    Arguments:
        hidden: Number of channels at full resolution, doubled at each level.
        levels: Number of times the spatial size is halved. Default: 2.
        kernel: Kernel size, odd. Default: 3.

    Raises:
        GraphError: If an argument is out of range, or the data are vectors or of sizes that are not divisible.
        ArgumentError: If an argument is not an int.

    References:
        O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
        https://arxiv.org/abs/1505.04597

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Coupling((4, 8, 8), transform=ig.Affine(), subnet=ig.nets.UNet(hidden=8))
        >>> (y,), log_det = layer((torch.zeros(2, 4, 8, 8),))
        >>> y.shape
        torch.Size([2, 4, 8, 8])
    """

    hidden: int
    levels: int = 2
    kernel: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "levels", "kernel")

    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        require_spatial("UNet", x_shape)
        factor = 2**self.levels
        for size in x_shape[1:]:
            if size % factor:
                advice = f"size {size} is not divisible by {factor}: use fewer levels, or pad the data"
                raise GraphError("UNet", f"data of shape {x_shape}, levels={self.levels}", advice)
        return _UNet(x_shape, cond_shapes, self.hidden, self.levels, channels_out, self.kernel)

    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        factor = 2**self.levels
        return self.build((channels_in, factor, factor), (), channels_out)
