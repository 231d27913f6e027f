"""Layers that fit a shape, with their arguments, and a builder that gives them random parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.core.wrappers import Inverse
from invgraph.errors import GraphError
from invgraph.layers.actnorm import ActNorm
from invgraph.layers.all_in_one import AllInOne
from invgraph.layers.autoregressive import Autoregressive
from invgraph.layers.conv1x1 import Conv1x1
from invgraph.layers.coupling import Coupling
from invgraph.layers.dct import DCT
from invgraph.layers.elementwise import Elementwise
from invgraph.layers.haar import Haar
from invgraph.layers.householder import Householder
from invgraph.layers.learned_scaling import LearnedScaling
from invgraph.layers.linear import FixedLinear, Orthogonal
from invgraph.layers.low_rank_linear import LowRankLinear
from invgraph.layers.masked_coupling import MaskedCoupling
from invgraph.layers.orthogonal_linear import OrthogonalLinear
from invgraph.layers.patch_autoregressive import PatchAutoregressive
from invgraph.layers.permute import Permute
from invgraph.layers.reshape import Flatten, Reshape
from invgraph.layers.residual import Residual
from invgraph.layers.split import Split
from invgraph.layers.squeeze import Squeeze
from invgraph.nets import MLP, ConvNet
from invgraph.shapes import Shape
from invgraph.testing.randomize import draw, randomize
from invgraph.transforms.additive import Additive
from invgraph.transforms.affine import Affine
from invgraph.transforms.bernstein import Bernstein
from invgraph.transforms.linear_spline import LinearSpline
from invgraph.transforms.mixture_cdf import MixtureCDF
from invgraph.transforms.quadratic_spline import QuadraticSpline
from invgraph.transforms.rational_quadratic_spline import RationalQuadraticSpline
from invgraph.transforms.transform import Transform
from invgraph.transforms.volume_preserving import VolumePreserving

Recipe: TypeAlias = tuple[Callable[..., Invertible], Mapping[str, Any]]
"""A class or function to call with ``in_shapes, cond_shapes``, and its keyword arguments."""

# A layer amplifies rounding errors by its largest slope, and a graph multiplies the slopes of its nodes. The slopes are
# bounded so that a chain of sixteen layers still has a round trip error of 1e-10 in float64.
_TRANSFORMS: tuple[Transform, ...] = (
    Affine(clamp=1.0),
    Additive(),
    Affine(clamp=1.0, activation="tanh"),
    VolumePreserving(clamp=1.0),
    RationalQuadraticSpline(bins=4, min_width=0.15, min_height=0.15, min_slope=0.3),
    RationalQuadraticSpline(bins=3, min_width=0.2, min_height=0.2, min_slope=0.3, circular=True),
    LinearSpline(bins=3, min_width=0.2, min_height=0.2),
    QuadraticSpline(bins=3, min_width=0.2, min_height=0.3, learned_bound=True),
    MixtureCDF(components=2, clamp=0.5),
    Bernstein(degree=5, min_step=0.1),
)
_SAMPLES = 32  # samples for data-dependent initialization; fewer would estimate the standard deviation poorly
_MAX_SEQUENTIAL = 8  # maximum number of elements for layers whose inverse or log-det takes a step for each


def recipes(shape: Shape, cond_shapes: tuple[Shape, ...]) -> tuple[Recipe, ...]:
    """Return the layers with one input of this shape and these conditions, the simplest ones first.

    These are all layers that are exact up to rounding for any data and conditions. Excluded are transforms to or from
    an interval (Sigmoid, Logit, Softplus), GaussianMixture (its condition selects a component), Dequantize (it takes
    integers) and ContinuousFlow (it has the error of its solver).
    """
    found = [] if cond_shapes else [*unconditional(shape)]
    for transform in _TRANSFORMS:
        found += _structures(transform, shape, cond_shapes)
    return (*found, *_blocks(shape, cond_shapes))


def _structures(transform: Transform, shape: Shape, cond_shapes: tuple[Shape, ...]) -> Iterator[Recipe]:
    """Iterate over the structures of one transform that fit."""
    args = {"transform": transform, "subnet": _subnet(shape)}
    if shape[0] > 1:
        yield from ((Coupling, {**args, "sides": sides}) for sides in (1, 2))
        yield (inverted, {"layer": Coupling, **args})
    if _are_compatible(cond_shapes):
        yield (Elementwise, {"transform": transform, "subnet": _reader(cond_shapes)})
    if max(shape[1:], default=shape[0]) > 1:
        yield (MaskedCoupling, args)
    if transform.pointwise and 1 < math.prod(shape) <= _MAX_SEQUENTIAL:
        yield (Autoregressive, {"transform": transform, "hidden": 6})


def _blocks(shape: Shape, cond_shapes: tuple[Shape, ...]) -> Iterator[Recipe]:
    """Iterate over conditional layers that are not a structure around a transform."""
    channels, *sizes = shape
    if channels > 1:
        yield (AllInOne, {"transform": Affine(clamp=1.0), "subnet": _subnet(shape), "seed": channels})
        yield (AllInOne, {"subnet": _subnet(shape), "transform": Additive(), "householder": 2, "reverse": True})
    if cond_shapes and _are_compatible(cond_shapes):
        yield (Householder, {"reflections": 2, "subnet": _reader(cond_shapes)})
    if cond_shapes and all(len(other) == 1 for other in cond_shapes):
        yield (LowRankLinear, {"rank": 1, "subnet": _reader(cond_shapes), "clamp": 1.0})
    if math.prod(shape) <= _MAX_SEQUENTIAL:
        yield (Residual, {"hidden": 4, "layers": 1, "lipschitz": 0.5})
    cut = sizes or [channels]
    if all(size % 2 == 0 for size in cut) and max(cut) > 2:  # patches of edge 2, and at least two of them
        yield (PatchAutoregressive, {"transform": Affine(clamp=1.0), "width": 4, "depth": 1, "heads": 2})


def unconditional(shape: Shape) -> tuple[Recipe, ...]:
    """Return the recipes without conditions: reshapes, permutations, and fixed or learned linear maps."""
    channels, *sizes = shape
    found: list[Recipe] = [(Permute, {"seed": channels}), (Orthogonal, {"seed": channels}), (mixed, {}), (ActNorm, {})]
    if channels > 1:
        found += [(Split, {"sizes": (1, channels - 1)}), (Reshape, {"shape": (1, *shape)})] if len(shape) < 4 else []
    found += [(LearnedScaling, {"per_channel": bool(sizes)}), (OrthogonalLinear, {"chart": "cayley"})]
    # The triangular factors of a large rotation are worse conditioned than the rotation.
    found += [(Conv1x1, {"seed": channels, "orthogonal": channels > 4}), (Householder, {"reflections": 3})]
    found += [(LowRankLinear, {"rank": min(channels, 2), "clamp": 1.0}), (DCT, {})]
    if not sizes:
        return (*found, (Reshape, {"shape": (channels, 1, 1)}))
    found.append((Flatten, {}))
    if all(size % 2 == 0 for size in sizes):
        found += [(Haar, {}), (Haar, {"rebalance": 0.5, "order_by_wavelet": True}), (Squeeze, {}), (DCT, {"block": 2})]
    if channels % 2 ** len(sizes) == 0:
        found += [(enlarged, {"layer": Haar}), (enlarged, {"layer": Squeeze})]
    if sizes[0] > 1:
        found.append((Split, {"sizes": (1, sizes[0] - 1), "dim": 1}))
    return tuple(found)


def _are_compatible(cond_shapes: tuple[Shape, ...]) -> bool:
    """True if a subnet that reads the first condition can also read the others."""
    return all(len(other) == 1 or other[1:] == cond_shapes[0][1:] for other in cond_shapes[1:])


def _reader(cond_shapes: tuple[Shape, ...]) -> object:
    return _subnet(cond_shapes[0]) if cond_shapes else None


def _subnet(shape: Shape) -> object:
    return MLP(hidden=4) if len(shape) == 1 else ConvNet(hidden=3)


def inverted(in_shapes: Any, cond_shapes: Any, *, layer: type[Invertible], **args: Any) -> Invertible:
    """Return the inverse of a layer that keeps the shape."""
    return Inverse(layer(in_shapes, cond_shapes, **args))


def enlarged(in_shapes: tuple[Shape, ...], cond_shapes: Any, *, layer: type[Invertible]) -> Invertible:
    """Return the inverse of a downsampling layer."""
    channels, *sizes = in_shapes[0]
    return Inverse(layer((channels // 2 ** len(sizes), *(2 * size for size in sizes))))


def mixed(in_shapes: tuple[Shape, ...], cond_shapes: Any) -> Invertible:
    """Return a fixed linear layer with singular values between 0.7 and 1.4."""
    size = in_shapes[0][0]
    left, right = (Orthogonal((size,), seed=seed).double().get_buffer("matrix") for seed in (1, 2))
    return FixedLinear(
        in_shapes, matrix=left @ torch.logspace(-0.5, 0.5, size, base=2.0, dtype=torch.float64).diag() @ right
    )


def build(
    recipe: Recipe, in_shapes: tuple[Shape, ...], cond_shapes: tuple[Shape, ...], seed: int, dtype: torch.dtype
) -> Invertible:
    """Build a layer with random parameters, initialized from random data if it needs data."""
    maker, args = recipe
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        layer: Invertible = maker(in_shapes, cond_shapes, **args).to(dtype)
    like = torch.empty(0, dtype=dtype)
    layer._initialize(draw(in_shapes, _SAMPLES, like, seed), draw(cond_shapes, _SAMPLES, like, seed + 1))
    return randomize(layer, seed)


class Pooled(nn.Module):
    """Feature network for tests: all inputs, flattened, through a linear layer with two outputs."""

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(map(math.prod, shapes)), 2)

    def forward(self, *values: Tensor) -> Tensor:
        """Return the features, shape ``(B, 2)``."""
        return torch.tanh(cast(Tensor, self.linear(torch.cat([value.flatten(1) for value in values], dim=1))))


def small_network(shapes: tuple[Shape, ...], seed: int, dtype: torch.dtype) -> nn.Module:
    """Build a feature network for values of these shapes."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return Pooled(shapes).to(dtype)


Start: TypeAlias = tuple[Recipe, Shape, tuple[Shape, ...]]
"""A layer, a shape of its input, and shapes of its conditions."""


def accepted(recipe: Recipe, conditions: int, dtype: torch.dtype) -> list[Start]:
    """Return the shapes, of those tried, that a layer accepts; it is a mistake if there are none."""
    found: list[Start] = []
    reason = "none tried"
    for shape in _TRIED:
        for cond_shapes in ((), ((2,),))[: 1 + min(conditions, 1)]:
            try:
                build(recipe, (shape,), cond_shapes, 0, dtype)
            except GraphError as error:
                reason = " ".join(str(error).split())
            else:
                found.append((recipe, shape, cond_shapes))
    if not found:
        name = getattr(recipe[0], "__name__", str(recipe[0]))
        given = f"also: {name}, which accepts no input of shape {', '.join(map(str, _TRIED))}"
        advice = f"no graph would hold it, and nothing would be tested; the last refusal: {reason}"
        raise GraphError("testing.graphs", given, advice)
    return found


_TRIED = ((1,), (2,), (3,), (4,), (6,), (8,), (2, 4), (3, 4), (1, 4, 4), (2, 4, 4), (3, 2, 2), (4, 2, 2), (2, 2, 2, 2))
