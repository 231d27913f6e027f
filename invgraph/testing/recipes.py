"""Which layers fit a shape, with arguments; and how one is built with random parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from invgraph.invertible import Inverse, Invertible
from invgraph.modules.actnorm import ActNorm
from invgraph.modules.coupling import Coupling
from invgraph.modules.elementwise import Elementwise
from invgraph.modules.haar import Haar
from invgraph.modules.linear import FixedLinear, Orthogonal
from invgraph.modules.permute import Permute
from invgraph.modules.reshape import Flatten, Reshape
from invgraph.modules.split import Split
from invgraph.modules.squeeze import Squeeze
from invgraph.nets import MLP, ConvNet
from invgraph.shapes import Shape
from invgraph.testing.randomize import draw, randomize
from invgraph.transforms.additive import Additive
from invgraph.transforms.affine import Affine
from invgraph.transforms.rational_quadratic_spline import RationalQuadraticSpline
from invgraph.transforms.volume_preserving import VolumePreserving

Recipe: TypeAlias = tuple[Callable[..., Invertible], Mapping[str, Any]]
"""A class, or function, called with ``in_shapes, cond_shapes`` and these keyword arguments."""

# Errors of rounding grow by each layer's largest slope, and a graph multiplies those of its nodes: bounds on what one
# layer may stretch keep sixteen of them in a row within what float64 can undo to ten digits.
_TRANSFORMS = (
    Affine(clamp=1.0),
    Additive(),
    Affine(clamp=1.0, activation="tanh"),
    VolumePreserving(clamp=1.0),
    RationalQuadraticSpline(bins=4, min_width=0.15, min_height=0.15, min_slope=0.3),
)
_ROWS = 32  # that a layer starts from; the deviation of a few would be far from the one of the data


def recipes(shape: Shape, cond_shapes: tuple[Shape, ...]) -> tuple[Recipe, ...]:
    """Layers with one input of this shape, under these conditions; the first ones are the simplest."""
    subnet = _subnet(shape)
    found: list[Recipe] = [] if cond_shapes else [*unconditional(shape)]
    first = cond_shapes[0] if cond_shapes else None
    for transform in _TRANSFORMS:
        if shape[0] > 1:
            found += [(Coupling, {"transform": transform, "subnet": subnet, "sides": sides}) for sides in (1, 2)]
            found += [(inverted, {"layer": Coupling, "transform": transform, "subnet": subnet})]
        reader = None if first is None else _subnet(first)
        if first is None or all(len(other) == 1 or other[1:] == first[1:] for other in cond_shapes[1:]):
            found.append((Elementwise, {"transform": transform, "subnet": reader}))
    return tuple(found)


def unconditional(shape: Shape) -> tuple[Recipe, ...]:
    """Of these, the ones that move numbers about or mix channels by fixed or learned matrices."""
    channels, *sizes = shape
    found: list[Recipe] = [(Permute, {"seed": channels}), (Orthogonal, {"seed": channels}), (mixed, {}), (ActNorm, {})]
    if channels > 1:
        found += [(Split, {"sizes": (1, channels - 1)}), (Reshape, {"shape": (1, *shape)})] if len(shape) < 4 else []
    if not sizes:
        return (*found, (Reshape, {"shape": (channels, 1, 1)}))
    found.append((Flatten, {}))
    if all(size % 2 == 0 for size in sizes):
        found += [(Haar, {}), (Haar, {"rebalance": 0.5, "order_by_wavelet": True}), (Squeeze, {})]
    if channels % 2 ** len(sizes) == 0:
        found += [(enlarged, {"layer": Haar}), (enlarged, {"layer": Squeeze})]
    if sizes[0] > 1:
        found.append((Split, {"sizes": (1, sizes[0] - 1), "dim": 1}))
    return tuple(found)


def _subnet(shape: Shape) -> object:
    return MLP(hidden=4) if len(shape) == 1 else ConvNet(hidden=3)


def inverted(in_shapes: Any, cond_shapes: Any, *, layer: type[Invertible], **args: Any) -> Invertible:
    """The inverse of a layer that keeps the shape."""
    return Inverse(layer(in_shapes, cond_shapes, **args))


def enlarged(in_shapes: tuple[Shape, ...], cond_shapes: Any, *, layer: type[Invertible]) -> Invertible:
    """The inverse of a downsampling."""
    channels, *sizes = in_shapes[0]
    return Inverse(layer((channels // 2 ** len(sizes), *(2 * size for size in sizes))))


def mixed(in_shapes: tuple[Shape, ...], cond_shapes: Any) -> Invertible:
    """A matrix with singular values between 0.7 and 1.4."""
    size = in_shapes[0][0]
    left, right = (Orthogonal((size,), seed=seed).double().get_buffer("matrix") for seed in (1, 2))
    return FixedLinear(
        in_shapes, matrix=left @ torch.logspace(-0.5, 0.5, size, base=2.0, dtype=torch.float64).diag() @ right
    )


def build(
    recipe: Recipe, in_shapes: tuple[Shape, ...], cond_shapes: tuple[Shape, ...], seed: int, dtype: torch.dtype
) -> Invertible:
    """The layer with random parameters, started from data where it does."""
    maker, args = recipe
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        layer: Invertible = maker(in_shapes, cond_shapes, **args).to(dtype)
    like = torch.empty(0, dtype=dtype)
    layer._initialize(draw(in_shapes, _ROWS, like, seed), draw(cond_shapes, _ROWS, like, seed + 1))
    return randomize(layer, seed)


class Pooled(nn.Module):
    """A feature network for tests: everything it reads, flattened, through one layer of two units."""

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(map(math.prod, shapes)), 2)

    def forward(self, *values: Tensor) -> Tensor:
        """The features, ``(B, 2)``."""
        return torch.tanh(cast(Tensor, self.linear(torch.cat([value.flatten(1) for value in values], dim=1))))


def small_network(shapes: tuple[Shape, ...], seed: int, dtype: torch.dtype) -> nn.Module:
    """A feature network of values of these shapes."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return Pooled(shapes).to(dtype)
