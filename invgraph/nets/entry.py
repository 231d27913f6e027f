"""First layer of a subnet, which takes data and conditions, and what all factories of subnets check."""

from __future__ import annotations

from torch import Tensor, nn

from invgraph.arguments import require_count
from invgraph.core.given import add_rows
from invgraph.core.known_shape import known_shape
from invgraph.core.subnet import Subnet, SubnetFactory, spread_vector
from invgraph.errors import GraphError
from invgraph.fused.in_place import is_overwritable
from invgraph.nets.initial_weights import affine
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import is_untouched


def check_sizes(factory: SubnetFactory, *names: str) -> None:
    """Replace fields of a frozen factory by plain ints of at least 1; a ``kernel`` must be odd as well."""
    where = type(factory).__name__
    for name in names:
        size = require_count(where, name, getattr(factory, name))
        if name == "kernel" and size % 2 == 0:
            raise GraphError(where, f"kernel={size}", "kernel must be odd, to keep the spatial size")
        object.__setattr__(factory, name, size)


def require_spatial(where: str, shape: Shape) -> None:
    """Refuse shapes without spatial axes, or with more than three."""
    if not 2 <= len(shape) <= 4:
        advice = f"{where} works on signals (C, L), images (C, H, W) and volumes; for vectors use nets.ResidualMLP"
        raise GraphError(where, f"data of shape {shape}", advice)


class Entry(Subnet):
    """First layer of a subnet, ``W_x x + sum of W_c c + b``; vector conditions are added at every position."""

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

    def known_shape(self, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> Shape | None:
        if not is_untouched(self, Subnet.forward):
            return None
        return sum_shape(self.data, self.conditions, x_shape, cond_shapes)


def sum_shape(
    layer: nn.Module, conditions: nn.ModuleList, x_shape: Shape, cond_shapes: tuple[Shape, ...]
) -> Shape | None:
    """Return the shape of ``W_x x + sum of W_c c``; None if it takes a trial to know."""
    shape = known_shape(layer, x_shape)
    if shape is None or len(conditions) != len(cond_shapes):
        return None
    added = [known_shape(part, given) for part, given in zip(conditions, cond_shapes, strict=True)]
    return shape if all(one in (shape, shape[:1]) for one in added) else None


def sum_of_conditions(layers: nn.ModuleList, cs: Tensors, ndim: int) -> Tensors:
    """Return the sum of linear layers applied to the conditions; vectors get axes of size one, up to ``ndim``."""
    total: Tensor | None = None
    for layer, c in zip(layers, cs, strict=True):
        part = spread_vector(layer(c), ndim)
        total = part if total is None else total + part
    return () if total is None else (total,)


def add_conditions(layer: nn.Module, h: Tensor, given: Tensors) -> Tensor:
    """Add the contribution of the conditions, if there are any, to a layer's result ``h``."""
    return add_rows(h, given[0], in_place=is_overwritable(layer)) if given else h
