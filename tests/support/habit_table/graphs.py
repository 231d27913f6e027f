"""The graphs of the table: every family of layers stands in one of them, beside layers that people put things on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize

ROWS, SAMPLES = 3, 2
MATRIX = [[2.0, 1.0, 0.0, 0.5], [0.0, 1.5, 0.3, 0.0], [0.0, 0.2, 1.2, 0.0], [0.4, 0.0, 0.0, 1.0]]
"""Rows of conditions, and samples for each."""

Number = Callable[[Any], Any]
"""Python's numbers as they are, or as another kind of number."""


def plain(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 5), nn.ReLU(), nn.Linear(5, channels_out))


def plain_conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, channels_out, 1))


def smooth(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 4), nn.Tanh(), nn.Linear(4, channels_out))


def affine(n: Number) -> ig.Affine:
    return ig.Affine(clamp=n(1.0))


def block(x: Any, c: Any, n: Number, subnet: Any = None) -> Any:
    """A permutation and a coupling: what people put things on, in graphs whose layers have nothing for it."""
    h = ig.Node(x, ig.Permute, {"seed": n(3)})
    return ig.Node(h, ig.Coupling, {"transform": affine(n), "subnet": subnet or ig.nets.MLP(n(5))}, conditions=c)


def couplings(x: Any, c: Any, n: Number) -> Any:
    return block(block(x, c, n), c, n)


def splines(x: Any, c: Any, n: Number) -> Any:
    h = ig.Node(x, ig.Orthogonal, {"seed": n(1)})
    args = {"transform": ig.RationalQuadraticSpline(bins=n(4), bound=n(4.0)), "subnet": plain, "sides": n(1)}
    h = ig.Node(h, ig.Coupling, args, conditions=c)
    return ig.Node(h, ig.Elementwise, {"transform": ig.LinearSpline(bins=n(3))})


def image(x: Any, c: Any, n: Number) -> Any:
    h = ig.chain(x, (ig.Squeeze, {"factor": n(2)}), ig.ActNorm, (ig.Conv1x1, {"seed": n(1)}))
    h = ig.Node(h, ig.Coupling, {"transform": affine(n), "subnet": ig.nets.ConvNet(n(3))}, conditions=c)
    return ig.Node(h, ig.Coupling, {"transform": ig.Additive(), "subnet": plain_conv}, conditions=c)


def multiscale(x: Any, c: Any, n: Number) -> Any:
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 2, "out_features": 3})
    a, b = ig.Node(ig.Node(x, ig.Haar, {"rebalance": n(0.5)}), ig.Split, {"sizes": (n(2), n(2))})
    args = {"transform": affine(n), "subnet": ig.nets.MLP(n(5))}
    a = ig.Node(ig.Node(a, ig.Flatten), ig.Coupling, args, conditions=feature)
    b = ig.Node(ig.Node(b, ig.Flatten), ig.Coupling, args, conditions=(a, feature))
    return ig.Node((a, b), ig.Concat)


def cosines(x: Any, c: Any, n: Number) -> Any:
    h = ig.chain(x, (ig.DCT, {"block": n(2)}), (ig.OrthogonalSqueeze, {"factor": n(2)}))
    h = ig.chain(h, (ig.Reshape, {"shape": (n(8), n(2))}), ig.Flatten)
    return block(h, c, n, ig.nets.ResidualMLP(n(4), blocks=n(1)))


def autoregressive(x: Any, c: Any, n: Number) -> Any:
    args = {"transform": affine(n), "hidden": n(5), "layers": n(2)}
    h = ig.Node(x, ig.Autoregressive, args, conditions=c)
    return ig.Node(ig.Node(h, ig.Permute, {"order": (3, 2, 1, 0)}), ig.Autoregressive, args, conditions=c)


def patches(x: Any, c: Any, n: Number) -> Any:
    args = {"transform": affine(n), "patch": n(2), "width": n(4), "depth": n(1), "heads": n(2)}
    return ig.Node(x, ig.PatchAutoregressive, args, conditions=c)


def masked(x: Any, c: Any, n: Number) -> Any:
    h = ig.Node(x, ig.Standardize, {"mean": [1.0, -1.0, 0.5, 0.0], "std": [n(2.0), 1.0, 0.5, 1.5]})
    h = ig.Node(h, ig.MaskedCoupling, {"transform": affine(n), "subnet": ig.nets.MLP(n(5))}, conditions=c)
    return ig.Node(h, ig.LearnedScaling)


def all_in_one(x: Any, c: Any, n: Number) -> Any:
    args = {"subnet": ig.nets.MLP(n(5)), "householder": n(2), "seed": n(1)}
    return ig.Node(ig.Node(x, ig.AllInOne, args, conditions=c), ig.AllInOne, args, conditions=c)


def linear(x: Any, c: Any, n: Number) -> Any:
    net = ig.nets.MLP(n(5))
    h = ig.chain(x, (ig.FixedLinear, {"matrix": MATRIX}), (ig.OrthogonalLinear, {}))
    h = ig.Node(h, ig.Householder, {"reflections": n(2), "subnet": net}, conditions=c)
    h = ig.Node(h, ig.LowRankLinear, {"rank": n(2), "subnet": net}, conditions=c)
    return ig.Node(h, ig.Elementwise, {"transform": affine(n), "subnet": net}, conditions=c)


def continuous(x: Any, c: Any, n: Number) -> Any:
    args = {"subnet": smooth, "time": n(0.05), "steps": n(2)}
    return ig.Node(block(x, c, n), ig.ContinuousFlow, args, conditions=c)


def residual(x: Any, c: Any, n: Number) -> Any:
    return ig.Node(block(x, c, n), ig.Residual, {"hidden": n(4), "iterations": n(40)}, conditions=c)


def mixture(x: Any, c: Any, n: Number) -> Any:
    return ig.Node(block(x, c, n), ig.GaussianMixture, {"subnet": plain, "seed": n(1)}, conditions=(c, c))


def integers(x: Any, c: Any, n: Number) -> Any:
    h = ig.Node(x, ig.Dequantize, {"levels": n(4), "seed": n(1)})
    h = ig.Node(h, ig.Elementwise, {"transform": ig.Logit(alpha=n(0.05))})
    return block(h, c, n)


def bounded(x: Any, c: Any, n: Number) -> Any:
    return block(ig.Node(x, ig.Box, {"low": [0.0, -3.0, -1.0, n(1.0)], "high": [2.0, 1.0, 1.0, 4.0]}), c, n)


def nested(x: Any, c: Any, n: Number) -> Any:
    a, d = ig.InputNode(4), ig.ConditionNode(2)
    inner = ig.Graph([a], [block(a, d, n)], [d])
    h = ig.Node(x, inner, conditions=c)
    upside = ig.Inverse(ig.Coupling((4,), ((2,),), transform=affine(n), subnet=ig.nets.MLP(n(5))))
    return ig.Node(h, upside, conditions=c)


Make = Callable[[Any, Any, Number], Any]

GRAPHS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "couplings": (couplings, (4,)),
    "splines": (splines, (4,)),
    "image": (image, (1, 4, 4)),
    "multiscale": (multiscale, (1, 4, 4)),
    "cosines": (cosines, (1, 4, 4)),
    "autoregressive": (autoregressive, (4,)),
    "patches": (patches, (1, 4, 4)),
    "masked": (masked, (4,)),
    "all in one": (all_in_one, (4,)),
    "linear": (linear, (4,)),
    "continuous": (continuous, (3,)),
    "residual": (residual, (3,)),
    "mixture": (mixture, (3,)),
    "integers": (integers, (4,)),
    "bounded": (bounded, (4,)),
    "nested": (nested, (4,)),
}
"""The function that declares the graph's nodes, and the shape of its data. Conditions have two numbers."""


def same(number: Any) -> Any:
    return number


def make(name: str, number: Number = same) -> ig.Graph:
    """Build a graph, with every number in its arguments of the kind that a function makes of it."""
    declare, shape = GRAPHS[name]
    x, c = ig.InputNode(*shape, name="x"), ig.ConditionNode(2, name="c")
    return ig.Graph([x], [declare(x, c, number)], [c])


@functools.cache
def built(name: str) -> ig.Graph:
    """A graph in double precision and evaluation mode with random weights; nothing is ever put on it."""
    return filled(name).eval()


def filled(name: str, number: Number = same) -> ig.Graph:
    """A graph in double precision, with weights that are the same in every call."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        graph = make(name, number).double()
    for layer in graph.modules():
        if isinstance(layer, ig.ActNorm):
            layer.initialize(_batch(layer.in_shapes[0]))
    return randomize(graph, seed=1, scale=0.5)


def _batch(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    return (torch.randn(8, *shape, generator=generator, dtype=torch.float64),)


def draw(
    graph: ig.Invertible, name: str, inverse: bool, dtype: torch.dtype = torch.float64
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values of ``SAMPLES * ROWS`` rows and conditions of ``ROWS`` rows, as leaves."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(SAMPLES * ROWS, *GRAPHS[name][1], generator=generator, dtype=torch.float64)
    if inverse:
        x = x.flatten(1).view(SAMPLES * ROWS, *graph.out_shapes[0])
    elif name == "integers":
        x = (2 * x.sigmoid() * 1.99).floor()
    elif name == "bounded":
        low, high = torch.tensor([[0.0, -3.0, -1.0, 1.0], [2.0, 1.0, 1.0, 4.0]], dtype=torch.float64)
        x = low + (high - low) * x.sigmoid()
    c = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    return (x.to(dtype).requires_grad_(),), (c.to(dtype).requires_grad_(),)
