"""What all subnets share: the first layer, which takes data and conditions apart, and the start of the weights."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn

from invgraph.arguments import require_count
from invgraph.core.given import add_rows
from invgraph.core.subnet import Subnet, SubnetFactory, spread_vector
from invgraph.errors import GraphError
from invgraph.fused.in_place import is_overwritable
from invgraph.nets.convolution import CONVOLUTIONS
from invgraph.shapes import Shape, Tensors

Affine: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def check_sizes(factory: SubnetFactory, *names: str) -> None:
    """Replace fields of a frozen factory by plain ints of at least 1; a ``kernel`` must be odd as well."""
    where = type(factory).__name__
    for name in names:
        size = require_count(where, name, getattr(factory, name))
        if name == "kernel" and size % 2 == 0:
            raise GraphError(where, f"kernel={size}", "kernel must be odd, to keep the spatial size")
        object.__setattr__(factory, name, size)


def require_spatial(where: str, shape: Shape) -> None:
    """Refuse vectors, and more than three spatial axes."""
    if not 2 <= len(shape) <= 4:
        advice = f"{where} works on signals (C, L), images (C, H, W) and volumes; for vectors use nets.ResidualMLP"
        raise GraphError(where, f"data of shape {shape}", advice)


def affine(rank: int, channels_in: int, channels_out: int, kernel: int = 1, bias: bool = True) -> Affine:
    """A linear layer for vectors (rank 1), else a convolution that keeps the spatial size; Xavier's start."""
    layer: Affine
    if rank == 1:
        layer = nn.Linear(channels_in, channels_out, bias=bias)
    else:
        layer = CONVOLUTIONS[rank - 2](channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    return start(layer)


def start(layer: Affine, zero: bool = False) -> Affine:
    """Xavier's weights, or zeros; zero biases."""
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Entry(Subnet):
    """The first layer of a subnet: ``W_x x + sum of W_c c + b``; conditions that are vectors are added everywhere."""

    broadcasts = True

    def __init__(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], width: int, kernel: int = 1) -> None:
        super().__init__()
        self.rank = len(x_shape)
        self.data = affine(self.rank, x_shape[0], width, kernel)
        self.conditions = nn.ModuleList(affine(len(c), c[0], width, kernel, bias=False) for c in cond_shapes)

    def precompute(self, cs: Tensors) -> Tensors:
        return sum_of_conditions(self.conditions, cs, self.rank + 1)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        return add_conditions(self.data, self.data(x), given)


def sum_of_conditions(layers: nn.ModuleList, cs: Tensors, ndim: int) -> Tensors:
    """Return the sum of what linear layers make of the conditions; vectors get axes of size one, up to ``ndim``."""
    total: Tensor | None = None
    for layer, c in zip(layers, cs, strict=True):
        part = spread_vector(layer(c), ndim)
        total = part if total is None else total + part
    return () if total is None else (total,)


def add_conditions(layer: nn.Module, h: Tensor, given: Tensors) -> Tensor:
    """Add to a layer's result what comes from the conditions, if there are any."""
    return add_rows(h, given[0], in_place=is_overwritable(layer)) if given else h
