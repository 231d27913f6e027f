"""Every change of what a layer computes is seen by a checkpoint: it reaches the fingerprint, or travels as a tensor."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from cases import CASES
from torch import Tensor, nn

import invgraph as ig
from invgraph.checkpoint.fingerprint import fingerprint, tensor_lines
from invgraph.testing import randomize
from invgraph.transforms.transform import Transform

MLP, CONV = ig.nets.MLP(hidden=6), ig.nets.ConvNet(hidden=4)
AFFINE, GIN = ig.Affine(clamp=1.0), ig.VolumePreserving()
SMOOTH, SMOOTH_CONV = ig.nets.ResidualMLP(4, blocks=1), ig.nets.ResidualConvNet(2, blocks=1)
MASK = torch.tensor([[[True, False]], [[False, True]], [[True, True]]]).expand(3, 2, 2)
IMAGE = (4, 4, 4)


class Row(NamedTuple):
    """A layer, and for each of its arguments another value."""

    cls: type[ig.Invertible]
    args: Mapping[str, Any]
    others: Mapping[str, Any]
    in_shapes: Any = (4,)
    cond_shapes: tuple[tuple[int, ...], ...] = ()


def noise(hidden: int) -> ig.Invertible:
    return ig.Coupling((4,), ((4,),), transform=AFFINE, subnet=ig.nets.MLP(hidden=hidden))


ROWS = (
    Row(ig.Coupling, {"transform": AFFINE, "subnet": MLP},
        {"transform": ig.Affine(clamp=0.5), "subnet": ig.nets.MLP(6, layers=2), "sides": 1, "split": 1,
         "separate": True}, (5,)),
    Row(ig.Coupling, {"transform": AFFINE, "subnet": MLP, "sides": 1}, {"part": 2}),
    Row(ig.Elementwise, {"transform": AFFINE, "subnet": CONV},
        {"transform": GIN, "subnet": SMOOTH_CONV}, IMAGE, (IMAGE,)),
    Row(ig.Permute, {}, {"seed": 1, "order": (1, 0, 3, 2)}),
    Row(ig.Permute, {}, {"dim": 1}, IMAGE),
    Row(ig.Orthogonal, {}, {"seed": 1}),
    Row(ig.FixedLinear, {"matrix": [[2.0, 1.0], [0.5, -1.0]]},
        {"matrix": [[2.0, 1.0], [0.5, 1.0]], "shift": (1.0, 2.0)}, (2,)),
    Row(ig.Standardize, {"mean": 0.0, "std": 1.0}, {"mean": 1.0, "std": 2.0, "learned": True}),
    Row(ig.Box, {"low": 0.0, "high": 1.0}, {"low": -1.0, "high": 2.0}),
    Row(ig.Haar, {}, {"rebalance": 0.5, "order_by_wavelet": True, "axes": (2,)}, IMAGE),
    Row(ig.Squeeze, {}, {"factor": 4}, IMAGE),
    Row(ig.OrthogonalSqueeze, {}, {"factor": 4, "chart": "cayley", "shared": True}, IMAGE),
    Row(ig.Reshape, {"shape": (2, 2)}, {"shape": (1, 4)}),
    Row(ig.Split, {"sizes": (1, 3)}, {"sizes": (2, 2), "dim": 1}, IMAGE),
    Row(ig.Concat, {}, {"dim": 1}, (IMAGE, IMAGE)),
    Row(ig.AllInOne, {"subnet": CONV},
        {"subnet": SMOOTH_CONV, "transform": GIN, "split": 1, "permutation": "hard", "householder": 2, "reverse": True,
         "scale": False, "seed": 1, "gain": 2.0, "gain_function": "softplus", "damping": 0.5}, IMAGE),
    Row(ig.LearnedScaling, {}, {"per_channel": True}, IMAGE),
    Row(ig.Autoregressive, {"transform": AFFINE, "hidden": 8},
        {"transform": ig.LinearSpline(bins=2), "hidden": 9, "layers": 2}),
    Row(ig.GaussianMixture, {}, {"clamp": 0.5, "spread": 2.0, "seed": 1}, (3,), ((2,),)),
    Row(ig.GaussianMixture, {"subnet": MLP}, {"subnet": ig.nets.MLP(6, layers=2)}, (3,), ((2,), (2,))),
    Row(ig.Dequantize, {"noise": noise(6)}, {"levels": 8, "noise": noise(7)}),
    Row(ig.PatchAutoregressive, {"transform": AFFINE, "width": 4, "heads": 2},
        {"transform": ig.Affine(clamp=0.5), "patch": 1, "width": 8, "depth": 1, "heads": 1, "reverse": True}, IMAGE),
    Row(ig.ContinuousFlow, {"subnet": SMOOTH},
        {"subnet": ig.nets.ResidualMLP(4, blocks=2), "time": 0.5, "steps": 2, "trace": "estimate", "solver": "dopri5"}),
    Row(ig.Residual, {"hidden": 4},
        {"hidden": 5, "layers": 3, "kernel": 1, "lipschitz": 0.5, "log_det": "estimate"}, (1, 3, 3)),
    Row(ig.Residual, {"hidden": 4, "log_det": "estimate"}, {"terms": 2}),
    Row(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV},
        {"transform": GIN, "subnet": SMOOTH_CONV, "mask": MASK, "sides": 1}, (3, 2, 2)),
    Row(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV, "mask": MASK}, {"mask": ~MASK}, (3, 2, 2)),
    Row(ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV}, {"mask": "channel"}, (3, 2, 2)),
    Row(ig.Conv1x1, {}, {"orthogonal": True, "seed": 1, "matrix": torch.eye(4).flip(0)}),
    Row(ig.OrthogonalLinear, {}, {"chart": "cayley", "seed": 1}),
    Row(ig.Householder, {}, {"reflections": 3, "seed": 1}),
    Row(ig.Householder, {"subnet": CONV}, {"subnet": SMOOTH_CONV}, IMAGE, (IMAGE,)),
    Row(ig.LowRankLinear, {"rank": 2}, {"rank": 1, "clamp": 0.5, "seed": 1}),
    Row(ig.LowRankLinear, {"rank": 2, "subnet": MLP}, {"subnet": ig.nets.MLP(6, layers=2)}, (4,), ((2,),)),
    Row(ig.DCT, {}, {"block": 2}, IMAGE),
)  # fmt: skip

TRANSFORMS: tuple[tuple[Transform, Mapping[str, Any]], ...] = (
    (ig.Affine(), {"clamp": 1.0, "activation": "tanh"}),
    (ig.VolumePreserving(), {"clamp": 1.0, "activation": "tanh"}),
    (ig.CircularShift(), {"bound": 2.0}),
    (ig.LinearSpline(), {"bins": 4, "bound": 2.0, "learned_bound": True, "circular": True, "min_width": 1e-2,
                         "min_height": 1e-2}),
    (ig.QuadraticSpline(), {"bins": 4, "bound": 2.0, "learned_bound": True, "circular": True, "min_width": 1e-2,
                            "min_height": 1e-2}),
    (ig.RationalQuadraticSpline(), {"bins": 4, "bound": 2.0, "learned_bound": True, "circular": True,
                                    "min_width": 1e-2, "min_height": 1e-2, "min_slope": 1e-2}),
    (ig.CubicSpline(), {"bins": 4, "bound": 2.0, "learned_bound": True, "circular": True, "min_width": 1e-2,
                        "min_height": 1e-2}),
    (ig.MixtureCDF(), {"components": 2, "clamp": 1.0}),
    (ig.Bernstein(), {"degree": 5, "bound": 2.0, "min_step": 1e-2}),
    (ig.Sigmoid(), {"alpha": 0.1}),
    (ig.Logit(), {"alpha": 0.1}),
)  # fmt: skip

NETS: tuple[tuple[Any, Mapping[str, Any], tuple[int, ...]], ...] = (
    (ig.nets.MLP(4), {"hidden": 5, "layers": 2}, (4,)),
    (ig.nets.ConvNet(4), {"hidden": 5, "kernel": 1, "layers": 2}, IMAGE),
    (ig.nets.ResidualMLP(4), {"hidden": 5, "blocks": 1}, (4,)),
    (ig.nets.ResidualConvNet(4), {"hidden": 5, "blocks": 1, "kernel": 1}, IMAGE),
    (ig.nets.GatedAttention(4), {"hidden": 8, "blocks": 1, "heads": 2, "kernel": 1}, IMAGE),
    (ig.nets.UNet(4), {"hidden": 5, "levels": 1, "kernel": 1}, IMAGE),
    (ig.nets.ViT(8), {"width": 4, "depth": 2, "heads": 2, "patch": 1}, IMAGE),
)

# How closely or by what random numbers the same function is found: free to be chosen anew when a checkpoint is loaded.
FREE: Mapping[type, set[str]] = {
    ig.Autoregressive: {"tolerance", "blocks"},
    ig.ContinuousFlow: {"seed", "fixed_noise", "tolerance"},
    ig.Dequantize: {"seed", "fixed_noise", "check_domain"},
    ig.Box: {"check_domain"},
    ig.Residual: {"seed", "fixed_noise", "iterations"},
    ig.Sigmoid: {"check_domain"},
    ig.Logit: {"check_domain"},
    ig.Softplus: {"check_domain"},
}


def graph(cls: Any, in_shapes: Any, cond_shapes: Any, args: Mapping[str, Any]) -> ig.Graph:
    shapes = in_shapes if isinstance(in_shapes[0], tuple) else (in_shapes,)
    xs = [ig.InputNode(*shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    cs = [ig.ConditionNode(*shape, name=f"c{i}") for i, shape in enumerate(cond_shapes)]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        return ig.Graph(xs, list(ig.Node(xs, cls, args, conditions=cs, name="layer")), cs).double()


def draw(shapes: Any) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def seen(one: nn.Module, other: nn.Module) -> bool:
    """True if a checkpoint of one is refused by the other."""
    lines = [(fingerprint(module), tensor_lines(module.state_dict())) for module in (one, other)]
    return lines[0] != lines[1]


def same(one: ig.Graph, other: ig.Graph) -> bool:
    """True if they compute the same from the same tensors."""
    other.load_state_dict(one.state_dict())
    xs, cs = draw(one.in_shapes), draw(one.cond_shapes)
    found = [module(xs, cs) for module in (one, other)]
    ys = draw(one.out_shapes)
    found = [(*f, *module.inverse(ys, cs)) for f, module in zip(found, (one, other), strict=True)]
    flat = [[t for part in f for t in (part if isinstance(part, tuple) else (part,))] for f in found]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*flat, strict=True))


CHANGES = [
    pytest.param(row, name, value, id=f"{row.cls.__name__}-{name}-{index}")
    for index, row in enumerate(ROWS)
    for name, value in row.others.items()
]
CHANGES += [
    pytest.param(
        Row(ig.Elementwise, {"transform": transform}, {}),
        "transform",
        dataclasses.replace(transform, **{name: value}),  # type: ignore[type-var]
        id=f"{type(transform).__name__}-{name}",
    )
    for transform, others in TRANSFORMS
    for name, value in others.items()
]
CHANGES += [
    pytest.param(
        Row(ig.Coupling, {"transform": AFFINE, "subnet": net}, {}, shape),
        "subnet",
        dataclasses.replace(net, **{name: value}),
        id=f"{type(net).__name__}-{name}",
    )
    for net, others, shape in NETS
    for name, value in others.items()
]


@pytest.mark.parametrize(("row", "name", "value"), CHANGES)
def test_another_argument_is_seen_or_carried_by_the_tensors(row: Row, name: str, value: Any) -> None:
    if value == "dopri5":
        pytest.importorskip("torchdiffeq")
    one = graph(row.cls, row.in_shapes, row.cond_shapes, row.args)
    other = graph(row.cls, row.in_shapes, row.cond_shapes, {**row.args, name: value})
    randomize(one), randomize(other)
    assert seen(one, other) or same(one, other)


def test_every_argument_of_every_layer_is_looked_at() -> None:
    looked: dict[type, set[str]] = {cls: set(names) for cls, names in FREE.items()}
    for row in ROWS:
        looked.setdefault(row.cls, set()).update(row.others)
    for owner, others, *_ in (*TRANSFORMS, *NETS):
        looked.setdefault(type(owner), set()).update(others)
    classes = {case.cls for case in CASES} - {ig.Inverse, ig.Graph}
    for case in CASES:
        given = case.args.get("transform", ())
        classes |= {type(transform) for transform in (given if isinstance(given, tuple) else (given,))}
    classes |= {type(case.args["subnet"]) for case in CASES if isinstance(case.args.get("subnet"), ig.nets.MLP)}
    classes |= {type(net) for net, *_ in NETS}
    for cls in classes:
        names = set(inspect.signature(cls).parameters) - {"in_shapes", "cond_shapes"}
        assert names - looked.get(cls, set()) == set(), cls.__name__


def test_what_is_free_is_let_pass() -> None:
    one = graph(ig.Autoregressive, (4,), (), {"transform": AFFINE, "hidden": 8})
    other = graph(ig.Autoregressive, (4,), (), {"transform": AFFINE, "hidden": 8, "tolerance": 1e-6, "blocks": 2})
    assert not seen(one, other)
