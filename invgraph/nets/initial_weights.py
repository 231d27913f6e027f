"""Layers of subnets with their initial weights: Xavier's, or zeros for a last layer."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from invgraph.nets.convolution import CONVOLUTIONS

Affine: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def affine(rank: int, channels_in: int, channels_out: int, kernel: int = 1, bias: bool = True) -> Affine:
    """Return a linear layer for vectors (rank 1), or a convolution that keeps the spatial size; Xavier-initialized."""
    layer: Affine
    if rank == 1:
        layer = nn.Linear(channels_in, channels_out, bias=bias)
    else:
        layer = CONVOLUTIONS[rank - 2](channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    return initialize(layer)


def initialize(layer: Affine, zero: bool = False) -> Affine:
    """Set the weights of a layer by Xavier's rule, or to zero, and its biases to zero; return the layer."""
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
