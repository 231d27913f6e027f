"""The table of layers: one line per case. Every check of the contract (tests/core/test_contract.py) runs on each.

To add a layer, add a line to ``CASES``::

    Case(ig.MyLayer, {"argument": 1}, (4, 6, 6)),                    # one input
    Case(ig.MyLayer, {"argument": 1}, (4, 6, 6), ((3,), (2, 6, 6))), # ... and two conditions
    Case(ig.MyLayer, {}, ((4,), (2,))),                              # two inputs

and these fields, if the layer needs them:

* ``domain``, ``codomain``: open interval of the layer's inputs and of its outputs; default: all real numbers.
* ``tolerance``: largest error of a round trip in float64, for inverses that iterate; the layer's docstring says why.
* ``tolerance32``: the same in float32, for layers that amplify rounding errors.
* ``without``: checks that cannot hold, with the reason: ``{"inverse_round_trip": "the inverse rounds"}``. The names
  are the keys of ``CHECKS`` in tests/core/test_contract.py.
* ``make``: function that returns the module, for modules that are not built from shapes (graphs, ``Inverse``).

Keep cases small (at most about 64 elements per sample): the full Jacobian of each is computed.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import FunctionType
from typing import Any

import pytest
import torch
from flat import flat
from torch import Tensor, nn

import invgraph as ig
from invgraph.shapes import Tensors
from invgraph.testing import randomize

MLP, CONV = ig.nets.MLP(hidden=6), ig.nets.ConvNet(hidden=4)
SMALL = {"patch": 2, "width": 4, "depth": 2, "heads": 2}
SMOOTH, SMOOTH_CONV = ig.nets.ResidualMLP(4, blocks=1), ig.nets.ResidualConvNet(2, blocks=1)
TURN, THREE = (-math.pi, math.pi), (-3.0, 3.0)
AFFINE, GIN, SPLINE = ig.Affine(clamp=1.0), ig.VolumePreserving(), ig.RationalQuadraticSpline(bins=3)

# Dequantize's inverse rounds down to integers; its forward draws the fractions from the seed and the row's index.
ROUNDS = {
    **dict.fromkeys(
        ("round_trip", "inverse_round_trip", "log_det", "gradients"), "the inverse rounds: it returns integers, exactly"
    ),
    **dict.fromkeys(("rows", "vmap"), "the noise of a row depends on its place in the batch"),
    "moves": "the noise is as fine as the dtype allows",
}
VARIES = {
    **ROUNDS,
    "log_dets_cancel": "the density of the noise depends on the integers",
    "extreme": "an integer itself means noise of zero, the edge of the open interval from which noise is drawn",
}


_BUILT: dict[tuple[int, torch.dtype, int], tuple[Case, ig.Invertible]] = {}
"""Modules by the id of their case, dtype and seed; with the case, so that no other object gets its id."""


@dataclass(frozen=True)
class Case:
    cls: type[ig.Invertible]
    args: Mapping[str, Any]
    in_shapes: tuple[Any, ...] = ()
    cond_shapes: tuple[tuple[int, ...], ...] = ()
    domain: tuple[float, float] | None = None
    codomain: tuple[float, float] | None = None
    tolerance: float = 1e-10
    tolerance32: float = 1e-4
    without: Mapping[str, str] = field(default_factory=dict)
    make: Callable[[], ig.Invertible] | None = None

    @functools.cached_property
    def id(self) -> str:
        """Name of the case in pytest."""
        transform = self.args.get("transform")
        parts = [self.cls.__name__]
        parts += [_describe_transform(transform)] if transform else []
        parts += self._subnet()
        parts += [
            f"{key}={_describe(value)}"
            for key, value in self.args.items()
            if key not in ("transform", "subnet", "check_domain")
        ]
        parts += [self.make.__name__] if self.make else [str(self.in_shapes).replace(" ", "")]
        parts += [str(self.cond_shapes).replace(" ", "")] if self.cond_shapes else []
        return "-".join(parts)

    @property
    def parts(self) -> set[object]:
        """Layer, transform, subnet and function that make the case, each by itself."""
        return {self.cls, type(self.args.get("transform")), *self._subnet(), self.make}

    @property
    def kind(self) -> tuple[object, ...]:
        """Layer, transform and subnet of the case, without their arguments and shapes."""
        return self.cls, type(self.args.get("transform")), *self._subnet(), self.make

    def shortened(self) -> Case:
        """Return the case without repetition, for compilers: they trace each iteration and side, and all are alike."""
        fewer: dict[str, Any] = {}
        if self.cls is ig.Residual:
            fewer = {"iterations": 3}
        elif self.cls is ig.ContinuousFlow:
            fewer = {"steps": 1}
        elif self.cls is ig.Coupling and self._subnet():  # the subnet matters here; other cases have both sides
            fewer = {"sides": 1}
        return replace(self, args={**self.args, **fewer})

    def _subnet(self) -> list[str]:
        subnet = self.args.get("subnet")
        if subnet is None or subnet in (MLP, CONV):
            return []
        return [subnet.__name__ if isinstance(subnet, FunctionType) else type(subnet).__name__]

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> ig.Invertible:
        """Return the module with random parameters (new modules are often the identity), with tuples in and out.

        The result is a copy of a module that is built once per dtype and seed: copying takes a tenth of the time.
        """
        return copy.deepcopy(self.built(dtype, seed))

    def built(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> ig.Invertible:
        """Return the module of ``build`` that all tests share: they may call it and nothing else."""
        key = (id(self), dtype, seed)
        if key not in _BUILT:
            _BUILT[key] = self, self.build_anew(dtype, seed)
        return _BUILT[key][1]

    def build_anew(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> ig.Invertible:
        """Return the module of ``build``, but not copied from an earlier one."""
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            module = self.make() if self.make else self.cls(self.in_shapes, self.cond_shapes, **self.args)
        module = module.to(dtype)
        xs, cs = _draw(module.in_shapes, self.domain, 8, dtype, 99), _draw(module.cond_shapes, None, 8, dtype, 98)
        if isinstance(module, (ig.ActNorm, ig.Graph)):  # they refuse to be called before that
            module.initialize(module._inputs().pack(xs), module._conditions().pack(cs))
        module = flat(randomize(module, seed=seed + 1))
        return module.eval() if module.stochastic else module  # in training they draw anew at each call

    def data(self, module: ig.Invertible, dtype: torch.dtype, batch: int = 3, seed: int = 0) -> tuple[Tensors, Tensors]:
        """Draw inputs and conditions."""
        xs = _draw(module.in_shapes, self.domain, batch, dtype, 2 * seed)
        return xs, _draw(module.cond_shapes, None, batch, dtype, 2 * seed + 1)

    def latents(
        self, module: ig.Invertible, dtype: torch.dtype, batch: int = 3, seed: int = 0
    ) -> tuple[Tensors, Tensors]:
        """Draw outputs, independently of any inputs, and conditions."""
        ys = _draw(module.out_shapes, self.codomain, batch, dtype, 2 * seed)
        return ys, _draw(module.cond_shapes, None, batch, dtype, 2 * seed + 1)


def _draw(shapes: Any, interval: tuple[float, float] | None, batch: int, dtype: torch.dtype, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    normals = (torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
    if interval is None:
        return tuple(normal.to(dtype) for normal in normals)
    low, high = interval
    return tuple((low + (high - low) * (0.02 + 0.96 * torch.special.ndtr(n))).to(dtype) for n in normals)


def _describe_transform(transform: Any) -> str:
    """Return a transform's name, with the arguments that differ from their defaults."""
    if isinstance(transform, tuple):
        return "+".join(map(_describe_transform, transform))
    changed = (f for f in fields(transform) if getattr(transform, f.name) != f.default)
    arguments = ",".join(f"{f.name}={_name(getattr(transform, f.name))}" for f in changed)
    return type(transform).__name__ + (f"({arguments})" if arguments else "")


def _name(value: Any) -> str:
    return value.__name__ if callable(value) else str(value)


def _describe(value: Any) -> str:
    return "given" if isinstance(value, (Tensor, list, nn.Module)) else str(value).replace(" ", "")


def plain(channels_in: int, channels_out: int) -> nn.Module:
    """Return a subnet as users write them: a plain module that gets data and conditions concatenated."""
    return nn.Sequential(nn.Linear(channels_in, 6), nn.Tanh(), nn.Linear(6, channels_out))


def plain_conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, channels_out, 1))


def variational_dequantize() -> ig.Dequantize:
    noise = ig.Coupling((3,), ((3,), (2,)), transform=AFFINE, subnet=MLP)
    return ig.Dequantize((3,), ((2,),), levels=4, noise=noise, check_domain=False)


def inverse_of_haar() -> ig.Inverse:
    return ig.Inverse(ig.Haar((2, 4, 4), rebalance=0.5))


def inverse_of_coupling() -> ig.Inverse:
    return ig.Inverse(ig.Coupling((4,), ((2,),), transform=AFFINE, subnet=MLP))


def inverse_of_split() -> ig.Inverse:
    return ig.Inverse(ig.Split((4, 2, 2), sizes=(1, 3)))


def single_graph() -> ig.Graph:
    """Return a graph of one input, output and condition, which takes and returns tensors, not tuples."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    h = ig.chain(x, (ig.Permute, {"seed": 1}), ig.ActNorm, (ig.Coupling, {"transform": AFFINE, "subnet": MLP}),
                 conditions=c)  # fmt: skip
    return ig.Graph(x, h, c)


def wide_graph() -> ig.Graph:
    """Return a graph with several inputs, outputs and conditions, a feature node, and conditions on inner values."""
    x, y = ig.InputNode(2, 4, 4, name="x"), ig.InputNode(3, name="y")
    c, d = ig.ConditionNode(2, name="c"), ig.ConditionNode(1, 2, 2, name="d")
    embedded = ig.FeatureNode(c, nn.Linear, {"in_features": 2, "out_features": 3}, name="embed")
    h = ig.Node(x, ig.Haar, {"rebalance": 0.5}, name="haar")
    a, b = ig.Node(h, ig.Split, {"sizes": (3, 5)}, name="split")
    b = ig.Node(b, ig.Coupling, {"transform": ig.Additive(), "subnet": CONV}, conditions=(d, c), name="conv")
    a = ig.Node(a, ig.Flatten, name="flat")
    kept = ig.Node(y, ig.Coupling, {"transform": AFFINE, "subnet": MLP}, conditions=(a, embedded), name="inner")
    b = ig.Node(b, ig.Flatten, name="flat_too")
    joined = ig.Node((a, b), ig.Concat, name="join")
    return ig.Graph((x, y), (joined, kept), (c, d))


CASES: tuple[Case, ...] = (
    # Coupling: every transform, on vectors, signals, images and volumes, under 0, 1 and 2 conditions.
    Case(ig.Coupling, {"transform": ig.Additive(), "subnet": MLP}, (5,)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP}, (4,)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP}, (5,), ((3,), (2,))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP, "sides": 1, "split": 0.2}, (6,), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP, "split": 4}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP, "separate": True}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": MLP, "part": 2, "sides": 1, "split": 2}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": (AFFINE, SPLINE), "subnet": CONV, "part": 2}, (3, 2, 2)),
    Case(ig.Coupling, {"transform": (SPLINE, AFFINE), "subnet": MLP, "separate": True}, (4,)),
    Case(ig.Coupling, {"transform": ig.Affine(clamp=torch.tanh), "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": plain}, (5,), ((3,), (1,))),
    Case(ig.Coupling, {"transform": ig.Affine(activation="tanh"), "subnet": MLP}, (4,), ((3,),)),
    Case(ig.Coupling, {"transform": ig.Affine(activation="sigmoid"), "subnet": MLP}, (4,), ((3,),)),
    Case(ig.Coupling, {"transform": ig.VolumePreserving(), "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": ig.VolumePreserving(), "subnet": CONV}, (4, 2, 2)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": CONV}, (3, 6), ((2,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": CONV}, (3, 4, 4)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": CONV}, (3, 4, 4), ((2,), (1, 4, 4))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": plain_conv}, (3, 4, 4), ((2,), (1, 4, 4))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": CONV}, (2, 2, 2, 4), ((1, 2, 2, 4),)),
    # ... with every other subnet of the library.
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ResidualMLP(6)}, (5,), ((3,), (2,))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ResidualConvNet(4)}, (3, 4), ((3,), (2, 4))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ResidualConvNet(4, kernel=1)}, (2, 2, 2, 2)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.GatedAttention(4, heads=2)}, (2, 4)),
    Case(
        ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.GatedAttention(4, heads=2)}, (2, 3, 3), ((2,), (1, 3, 3))
    ),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.UNet(2)}, (2, 4, 4), ((3,), (2, 4, 4))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.UNet(2, levels=1)}, (2, 2, 2, 4), ((3,),)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ViT(4, depth=2, heads=2)}, (3, 6)),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ViT(4, depth=2, heads=2)}, (2, 4, 4), ((3,), (1, 4, 4))),
    Case(ig.Coupling, {"transform": AFFINE, "subnet": ig.nets.ViT(4, depth=1)}, (2, 2, 2, 4), ((1, 2, 2, 4),)),
    # Elementwise: learned, from a vector, from a map, from both.
    Case(ig.Elementwise, {"transform": ig.Additive()}, (5,)),
    Case(ig.Elementwise, {"transform": AFFINE}, (2, 3, 3)),
    Case(ig.Elementwise, {"transform": AFFINE, "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Elementwise, {"transform": AFFINE, "subnet": MLP}, (2, 3, 3), ((3,),)),
    Case(ig.Elementwise, {"transform": AFFINE, "subnet": CONV}, (2, 3, 3), ((2, 3, 3), (4,))),
    Case(ig.Elementwise, {"transform": ig.VolumePreserving(), "subnet": MLP}, (5,), ((3,), (2,))),
    # Linear maps of the channels.
    Case(ig.Permute, {"seed": 1}, (5,)),
    Case(ig.Permute, {"order": (2, 0, 1)}, (3, 2, 2)),
    Case(ig.Permute, {"dim": 1}, (2, 5)),
    Case(ig.Permute, {"dim": 2, "order": (3, 1, 0, 2)}, (2, 3, 4)),
    Case(ig.Orthogonal, {"seed": 1}, (5,)),
    Case(ig.Orthogonal, {"seed": 2}, (3, 4)),
    Case(ig.Orthogonal, {"seed": 3}, (3, 2, 2, 2)),
    Case(ig.FixedLinear, {"matrix": [[2.0, 1.0, 0.0], [0.5, -1.0, 0.3], [0.0, 0.2, 1.5]]}, (3,)),
    Case(ig.FixedLinear, {"matrix": [[2.0, 1.0], [0.5, -1.0]]}, (2, 3, 3)),
    Case(ig.FixedLinear, {"matrix": [[2.0, 1.0], [0.5, -1.0]], "shift": (0.5, -2.0)}, (2, 2, 2)),
    # Shapes.
    Case(ig.Haar, {}, (2, 6)),
    Case(ig.Haar, {"rebalance": 0.5}, (2, 4, 4)),
    Case(ig.Haar, {"rebalance": 2.0, "order_by_wavelet": True}, (2, 4, 2)),
    Case(ig.Haar, {"rebalance": 0.5, "order_by_wavelet": True}, (2, 2, 4, 2)),
    Case(ig.Haar, {"axes": (2,), "rebalance": 0.5}, (2, 3, 4)),
    Case(ig.Haar, {"axes": (1, 3), "order_by_wavelet": True}, (1, 2, 3, 4)),
    Case(ig.OrthogonalSqueeze, {}, (2, 6)),
    Case(ig.OrthogonalSqueeze, {"chart": "cayley"}, (2, 4, 2)),
    Case(ig.OrthogonalSqueeze, {"factor": 3, "shared": True}, (2, 3, 6)),
    Case(ig.OrthogonalSqueeze, {}, (1, 2, 4, 2)),
    Case(ig.Squeeze, {}, (2, 6)),
    Case(ig.Squeeze, {}, (2, 4, 6)),
    Case(ig.Squeeze, {"factor": 3}, (1, 3, 6)),
    Case(ig.Squeeze, {}, (1, 2, 4, 2)),
    Case(ig.Flatten, {}, (2, 3, 2)),
    Case(ig.Flatten, {}, (5,)),
    Case(ig.Reshape, {"shape": (3, 4)}, (2, 3, 2)),
    Case(ig.Split, {"sizes": (1, 3)}, (4,)),
    Case(ig.Split, {"sizes": (1, 2, 1), "dim": 1}, (2, 4, 2)),
    Case(ig.Concat, {}, ((2,), (3,))),
    Case(ig.Concat, {"dim": 2}, ((2, 2, 1), (2, 2, 3), (2, 2, 2))),
    Case(ig.ActNorm, {}, (4,)),
    Case(ig.ActNorm, {}, (2, 3, 3)),
    # Splines: with tails, on a circle, with learned bounds.
    Case(ig.Coupling, {"transform": ig.LinearSpline(bins=4), "subnet": MLP}, (4,), ((3,),)),
    Case(ig.Elementwise, {"transform": ig.LinearSpline(bins=3, circular=True)}, (2, 3)),
    Case(ig.Coupling, {"transform": ig.QuadraticSpline(bins=4), "subnet": MLP}, (5,), ((3,), (2,))),
    Case(ig.Coupling, {"transform": ig.QuadraticSpline(bins=3, learned_bound=True), "subnet": CONV}, (3, 6)),
    Case(ig.Elementwise, {"transform": ig.QuadraticSpline(bins=4, circular=True)}, (5,)),
    Case(ig.Coupling, {"transform": ig.CubicSpline(bins=4), "subnet": MLP}, (5,), ((3,), (2,))),
    Case(ig.Coupling, {"transform": ig.CubicSpline(bins=3, learned_bound=True), "subnet": CONV}, (3, 2, 2)),
    Case(ig.Elementwise, {"transform": ig.CubicSpline(bins=4, circular=True)}, (5,)),
    Case(ig.Elementwise, {"transform": ig.CubicSpline(bins=2)}, (2, 3)),
    Case(ig.Autoregressive, {"transform": ig.CubicSpline(bins=3), "hidden": 8}, (4,), ((2,),)),
    Case(ig.Coupling, {"transform": ig.RationalQuadraticSpline(bins=4), "subnet": MLP}, (5,)),
    Case(ig.Coupling, {"transform": ig.RationalQuadraticSpline(bins=4), "subnet": CONV}, (3, 3, 3), ((2,), (1, 3, 3))),
    Case(ig.Coupling, {"transform": ig.RationalQuadraticSpline(bins=3), "subnet": CONV}, (2, 2, 2, 3), ((3,),)),
    Case(ig.Elementwise, {"transform": ig.RationalQuadraticSpline(bins=4, learned_bound=True)}, (5,)),
    Case(ig.Elementwise, {"transform": ig.RationalQuadraticSpline(circular=True), "subnet": MLP}, (2, 3), ((3,),)),
    Case(ig.Elementwise, {"transform": ig.CircularShift()}, (5,), domain=TURN, codomain=TURN),
    Case(ig.Elementwise, {"transform": ig.CircularShift(bound=3.0), "subnet": MLP}, (2, 3), ((3,),), THREE, THREE),
    # Blocks of several ideas, and scales.
    Case(ig.AllInOne, {"subnet": MLP}, (5,)),
    Case(ig.AllInOne, {"subnet": MLP, "permutation": "hard", "householder": 2, "reverse": True}, (5,), ((3,), (2,))),
    Case(ig.AllInOne, {"subnet": CONV, "permutation": "hard"}, (4, 6), ((3,),)),
    Case(ig.AllInOne, {"transform": GIN, "scale": False, "reverse": True, "subnet": CONV}, (4, 3, 3), ((2, 3, 3),)),
    Case(ig.AllInOne, {"subnet": CONV, "householder": 1}, (3, 2, 2, 2)),
    Case(ig.AllInOne, {"subnet": plain, "gain_function": "softplus", "gain": 0.7, "damping": 0.1}, (5,), ((3,),)),
    Case(
        ig.AllInOne,
        {"subnet": plain_conv, "permutation": "hard", "damping": 0.3, "gain_function": "sigmoid"},
        (4, 3, 3),
    ),
    Case(ig.AllInOne, {"subnet": MLP, "gain": 2.0}, (1,), ((3,), (2,))),
    Case(ig.AllInOne, {"subnet": CONV, "permutation": "hard", "reverse": True}, (1, 3, 3), ((2,), (1, 3, 3))),
    Case(ig.AllInOne, {"subnet": MLP}, (1, 3), ((2,),)),
    Case(ig.LearnedScaling, {}, (5,)),
    Case(ig.LearnedScaling, {}, (2, 3, 3)),
    Case(ig.LearnedScaling, {"per_channel": True}, (3, 4)),
    Case(ig.LearnedScaling, {"per_channel": True}, (2, 2, 2, 2)),
    Case(ig.Standardize, {"mean": [1.0, -2.0, 0.5], "std": [0.5, 2.0, 3.0]}, (3,)),
    Case(ig.Standardize, {"mean": 1.0, "std": [[[2.0]], [[0.5]]]}, (2, 3, 3)),
    Case(ig.Standardize, {"mean": torch.arange(6.0).view(2, 3), "std": 0.3, "learned": True}, (2, 3)),
    # Fixed maps between all numbers and an interval, at every rank.
    Case(ig.Elementwise, {"transform": ig.Sigmoid()}, (5,), codomain=(0, 1)),
    Case(ig.Elementwise, {"transform": ig.Sigmoid(alpha=0.05)}, (2, 3, 3), codomain=(0, 1)),
    Case(ig.Elementwise, {"transform": ig.Logit()}, (2, 4), domain=(0, 1)),
    Case(ig.Elementwise, {"transform": ig.Logit(alpha=0.05)}, (1, 2, 2, 2), domain=(0, 1)),
    Case(ig.Box, {"low": [0.0, -3.0, -1.0], "high": [2.0, 1.0, 1.0]}, (3,), domain=(0, 1)),
    Case(ig.Box, {"low": 0.0, "high": 1.0}, (1, 2, 2), domain=(0, 1)),
    Case(ig.Elementwise, {"transform": ig.Softplus()}, (5,), codomain=(0, 4)),
    Case(ig.Elementwise, {"transform": ig.Softplus()}, (2, 3, 3), codomain=(0, 4)),
    # Increasing functions whose inverse is a root.
    Case(ig.Coupling, {"transform": ig.MixtureCDF(components=3), "subnet": MLP}, (4,), ((3,), (2,))),
    Case(ig.Coupling, {"transform": ig.MixtureCDF(components=2), "subnet": CONV}, (3, 2, 2), ((3,),)),
    Case(ig.Elementwise, {"transform": ig.MixtureCDF(components=4)}, (5,)),
    Case(ig.Coupling, {"transform": ig.Bernstein(degree=6), "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Coupling, {"transform": ig.Bernstein(degree=4), "subnet": CONV}, (2, 2, 2, 2)),
    Case(ig.Elementwise, {"transform": ig.Bernstein(degree=12)}, (2, 3)),
    # Autoregressive: every transform, every rank, under 0, 1 and 2 conditions.
    Case(ig.Autoregressive, {"transform": ig.Additive(), "hidden": 8}, (4,)),
    Case(ig.Autoregressive, {"transform": AFFINE, "hidden": 8}, (5,), ((3,),)),
    Case(ig.Autoregressive, {"transform": AFFINE, "hidden": 8, "layers": 2}, (2, 3), ((3,), (2, 3))),
    Case(ig.Autoregressive, {"transform": AFFINE, "hidden": 3}, (2, 2, 2)),
    Case(ig.Autoregressive, {"transform": ig.LinearSpline(bins=3), "hidden": 8}, (4,)),
    Case(ig.Autoregressive, {"transform": ig.QuadraticSpline(bins=3), "hidden": 8}, (4,), ((2,),)),
    Case(ig.Autoregressive, {"transform": ig.RationalQuadraticSpline(bins=4), "hidden": 8}, (4,), ((3,), (2,))),
    Case(ig.Autoregressive, {"transform": ig.RationalQuadraticSpline(bins=3), "hidden": 8}, (1, 2, 2, 2), ((3,),)),
    Case(ig.Autoregressive, {"transform": ig.MixtureCDF(components=2), "hidden": 8}, (3,), ((2,),)),
    Case(ig.Autoregressive, {"transform": ig.Bernstein(degree=5), "hidden": 8}, (3,)),
    # Mixtures; the first condition chooses the component.
    Case(ig.GaussianMixture, {}, (3,), ((2,),)),
    Case(ig.GaussianMixture, {}, (1,), ((3,),)),
    Case(ig.GaussianMixture, {"subnet": MLP}, (3,), ((2,), (4,))),
    Case(ig.GaussianMixture, {"subnet": MLP, "clamp": 2.0}, (4,), ((3,), (2,), (1,))),
    # Noise on integers; tests/layers/test_dequantize.py has the checks that need integers.
    # The checks need neighbors of the integers as well.
    Case(ig.Dequantize, {"levels": 4, "check_domain": False}, (5,), domain=(0, 4), codomain=(0, 1), without=ROUNDS),
    Case(
        ig.Dequantize,
        {"levels": 256, "seed": 3, "check_domain": False},
        (2, 3, 3),
        domain=(0, 256),
        codomain=(0, 1),
        without=ROUNDS,
    ),
    Case(ig.Dequantize, {}, make=variational_dequantize, domain=(0, 4), codomain=(0, 1), without=VARIES),
    # Autoregressive over patches.
    Case(ig.PatchAutoregressive, {"transform": AFFINE, **SMALL}, (6,), ((3,), (2,))),
    Case(ig.PatchAutoregressive, {"transform": AFFINE, "reverse": True, **SMALL}, (2, 6)),
    Case(ig.PatchAutoregressive, {"transform": AFFINE, **SMALL}, (2, 4, 4), ((3,), (1, 4, 4))),
    Case(ig.PatchAutoregressive, {"transform": ig.RationalQuadraticSpline(bins=3), **SMALL}, (1, 4, 4), ((1, 4, 4),)),
    Case(ig.PatchAutoregressive, {"transform": AFFINE, **SMALL}, (1, 2, 2, 4), ((2,),)),
    # Flows in continuous time; their solver's error falls with the fourth power of the steps.
    Case(ig.ContinuousFlow, {"subnet": SMOOTH, "time": 0.05, "steps": 2}, (3,), tolerance=1e-9),
    Case(ig.ContinuousFlow, {"subnet": SMOOTH, "time": 0.05, "steps": 2}, (2,), ((3,), (2,)), tolerance=1e-9),
    Case(ig.ContinuousFlow, {"subnet": SMOOTH_CONV, "time": 0.05, "steps": 2}, (1, 3), ((1, 3),), tolerance=1e-9),
    Case(ig.ContinuousFlow, {"subnet": SMOOTH_CONV, "time": 0.05, "steps": 2}, (1, 2, 2), ((2,),), tolerance=1e-9),
    Case(ig.ContinuousFlow, {"subnet": SMOOTH_CONV, "time": 0.05, "steps": 2}, (1, 1, 2, 2), tolerance=1e-9),
    # Residual flows.
    Case(ig.Residual, {"hidden": 6}, (4,)),
    Case(ig.Residual, {"hidden": 6}, (4,), ((3,), (2,))),
    Case(ig.Residual, {"hidden": 4}, (2, 4), ((3,),)),
    Case(ig.Residual, {"hidden": 4}, (1, 3, 3), ((2,), (1, 3, 3))),
    Case(ig.Residual, {"hidden": 3, "layers": 1}, (1, 2, 2, 2), ((1, 2, 2, 2),)),
    # Couplings by a mask.
    Case(ig.MaskedCoupling, {"transform": AFFINE, "subnet": MLP}, (5,), ((3,),)),
    Case(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV}, (1, 5), ((2,), (1, 5))),
    Case(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV}, (2, 3, 3)),
    Case(ig.MaskedCoupling, {"transform": ig.RationalQuadraticSpline(bins=3), "subnet": CONV}, (1, 3, 4), ((2,),)),
    Case(ig.MaskedCoupling, {"transform": ig.VolumePreserving(), "subnet": CONV, "mask": "channel"}, (3, 2, 2)),
    Case(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV, "mask": "channel", "sides": 1}, (3, 2, 2, 2)),
    Case(ig.MaskedCoupling, {"transform": AFFINE, "subnet": MLP, "mask": torch.tensor([1, 1, 0, 1]).bool()}, (4,)),
    # Learned linear maps of the channels, and cosines.
    Case(ig.Conv1x1, {"seed": 1}, (5,)),
    Case(ig.Conv1x1, {"matrix": [[2.0, 1.0, 0.0], [0.5, -1.0, 0.3], [0.0, 0.2, 1.5]]}, (3, 4)),
    Case(ig.Conv1x1, {"seed": 2}, (4, 3, 3)),
    Case(ig.Conv1x1, {"seed": 3, "orthogonal": True}, (4, 2, 2, 2)),
    Case(ig.OrthogonalLinear, {"seed": 1}, (5,)),
    Case(ig.OrthogonalLinear, {"chart": "cayley"}, (3, 4)),
    Case(ig.OrthogonalLinear, {"chart": "cayley", "seed": 2}, (4, 3, 3)),
    Case(ig.Householder, {"reflections": 3}, (4,)),
    Case(ig.Householder, {"reflections": 2, "subnet": MLP}, (5,), ((3,),)),
    Case(ig.Householder, {"reflections": 2, "subnet": MLP}, (3, 2, 2), ((3,), (2,))),
    Case(ig.Householder, {"reflections": 2, "subnet": CONV}, (3, 2, 3), ((2, 2, 3), (4,))),
    Case(ig.LowRankLinear, {"rank": 2}, (5,)),
    Case(ig.LowRankLinear, {"rank": 2, "subnet": MLP}, (4,), ((3,), (2,))),
    Case(ig.LowRankLinear, {"rank": 1, "subnet": MLP}, (3, 2, 3), ((3,),)),
    Case(ig.LowRankLinear, {"rank": 2}, (4, 3)),
    Case(ig.DCT, {}, (6,)),
    Case(ig.DCT, {}, (2, 5)),
    Case(ig.DCT, {}, (2, 3, 4)),
    Case(ig.DCT, {"block": 3}, (1, 3, 6)),
    Case(ig.DCT, {"block": 2}, (2, 2, 4, 2)),
    # Modules that contain others.
    Case(ig.Inverse, {}, make=inverse_of_haar),
    Case(ig.Inverse, {}, make=inverse_of_coupling),
    Case(ig.Inverse, {}, make=inverse_of_split),
    Case(ig.Graph, {}, make=single_graph),
    Case(ig.Graph, {}, make=wide_graph),
)


def _once() -> list[Case]:
    seen: set[object] = set()
    fast = []
    for case in sorted(CASES, key=lambda case: case.cls is not ig.Elementwise):
        if not case.parts <= seen:
            fast.append(case)
        seen |= case.parts
    return fast


PARTS = _once()
"""Cases that have each layer, transform and subnet once between them; see ``each_part``."""


def each_part(one_in: int = 1, slow_in: int = 1) -> list[Any]:
    """Return the cases as parameters of a slow test: the fast suite runs it once for each layer, transform and subnet.

    Transforms are tried in ``Elementwise``, which calls them once. The slow suite takes the first case of each kind,
    the nightly one all others. Of what would be left, the fast suite takes one case in ``one_in`` and the slow one
    in ``slow_in``, for tests that take most of a second each.
    """
    rows = each_kind(pytest.mark.slow, pytest.mark.nightly)
    fast = {case.id for case in PARTS[::one_in]}
    slow = {row.id for row in [row for row in rows if pytest.mark.slow in row.marks][::slow_in]}

    def marks(row: Any) -> Any:
        return () if row.id in fast else pytest.mark.slow if row.id in slow else pytest.mark.nightly

    return [pytest.param(*row.values, id=row.id, marks=marks(row)) for row in rows]


def each_kind(first: Any = (), others: Any = pytest.mark.slow) -> list[Any]:
    """Return the cases as parameters of a slow test, with marks for the first case of each kind and for the others."""
    seen: set[object] = set()
    parameters = []
    for case in CASES:
        parameters.append(pytest.param(case, id=case.id, marks=others if case.kind in seen else first))
        seen.add(case.kind)
    return parameters


def some_parts(one_in: int) -> list[Any]:
    """Return the cases as parameters of a test that takes seconds: one part in ``one_in`` is slow, the rest nightly."""
    chosen = {case.id for case in PARTS[::one_in]}
    marks = {True: pytest.mark.slow, False: pytest.mark.nightly}
    return [pytest.param(case, id=case.id, marks=marks[case.id in chosen]) for case in CASES]
