"""Coupling: which part is transformed, by what, and what other runners make of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize

MLP = ig.nets.MLP(hidden=6)
SPLINE = ig.RationalQuadraticSpline(bins=3)
PAIRS = {
    "second alone": {"transform": ig.Affine(), "part": 2, "sides": 1},
    "second first": {"transform": ig.Affine(), "part": 2},
    "two transforms": {"transform": (SPLINE, ig.Additive())},
    "two transforms, second first": {"transform": (ig.Additive(), SPLINE), "part": 2},
    "a function as clamp": {"transform": ig.Affine(clamp=torch.tanh)},
}


def data(*sizes: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, size, dtype=torch.float64, generator=g) for size in sizes)


@pytest.mark.parametrize("part", [1, 2])
def test_a_one_sided_coupling_transforms_the_part_it_is_told(part: int) -> None:
    layer = randomize(ig.Coupling((5,), transform=ig.Affine(), subnet=MLP, sides=1, split=2, part=part)).double()
    (x,) = data(5)
    (y,), _ = layer((x,))
    changed = (y != x).all(0).tolist()
    assert changed == [part == 1] * 2 + [part == 2] * 3


def test_the_second_part_first_is_the_first_part_first_of_the_parts_exchanged() -> None:
    args = {"transform": ig.Affine(), "subnet": MLP}
    one = randomize(ig.Coupling((5,), split=2, part=2, **args)).double()
    other = ig.Coupling((5,), split=3, **args).double()
    other.load_state_dict(one.state_dict())
    (x,) = data(5)
    (y,), log_det = one((x,))
    (z,), same = other((torch.cat((x[:, 2:], x[:, :2]), dim=1),))
    assert torch.allclose(y, torch.cat((z[:, 3:], z[:, :3]), dim=1), atol=1e-13)
    assert torch.allclose(log_det, same, atol=1e-13)


def test_each_part_has_its_transform() -> None:
    layer = randomize(ig.Coupling((4,), transform=(ig.Additive(), ig.Affine()), subnet=MLP)).double()
    (x,) = data(4)
    _, log_det = layer((x,))
    assert [net[0].last_parameters()[1].numel() for net in layer.subnets] == [2, 4]  # type: ignore[index,operator]
    slope = torch.autograd.functional.jacobian(lambda u: layer((u,))[0][0], x[:1])[0, :, 0]
    assert torch.equal(slope[:2, :2], torch.eye(2, dtype=torch.float64))
    assert torch.allclose(torch.linalg.slogdet(slope).logabsdet, log_det[0], atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_constant_memory_gives_the_gradients(name: str) -> None:
    x, c = ig.InputNode(5, name="x"), ig.ConditionNode(2, name="c")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"subnet": MLP, **PAIRS[name]}, conditions=c), c)
    randomize(graph).double()
    values = data(5, 2)
    found = []
    for runner in (graph, ig.reversible(graph)):
        z, log_det = runner(*values)
        loss = z.square().sum() - log_det.sum()
        found.append(torch.autograd.grad(loss, list(graph.parameters())))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*found, strict=True))


def cubed(s: Tensor) -> Tensor:
    return s / (1 + s.square()).sqrt()


def test_clamps_may_be_functions() -> None:
    layer = randomize(ig.Coupling((4,), transform=ig.Affine(clamp=cubed), subnet=MLP)).double()
    assert repr(layer.transform) == "Affine(clamp=cubed)"
    (x,) = data(4)
    (y,), log_det = layer((x,))
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(twin((x,))[0][0], y)
    same = ig.Coupling((4,), transform=ig.Affine(clamp=1.0, activation="tanh"), subnet=MLP).double()
    same.load_state_dict(layer.state_dict())
    tanh = ig.Coupling((4,), transform=ig.Affine(clamp=torch.tanh), subnet=MLP).double()
    tanh.load_state_dict(layer.state_dict())
    assert torch.allclose(same((x,))[1], tanh((x,))[1], atol=1e-13)
    assert not torch.allclose(log_det, tanh((x,))[1])
    block = ig.AllInOne((4,), transform=ig.Affine(clamp=torch.tanh), subnet=MLP, permutation="hard").double()
    assert torch.equal(block((x,))[0][0], x[:, block.order])


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("clamps", [(3.0, 3.0), (0.5, 3.0)])
def test_another_transform_may_be_assigned(clamps: tuple[float, float], part: int) -> None:
    old, new = ig.Affine(clamp=1.0), tuple(ig.Affine(clamp=clamp) for clamp in clamps)
    layer = randomize(ig.Coupling((4,), transform=old, subnet=MLP, part=part), scale=2.0)
    other = ig.Coupling((4,), transform=new, subnet=MLP, part=part)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(5, 4)
    before = layer((x,))[0][0]
    layer.transform = new[0] if clamps[0] == clamps[1] else list(new)  # type: ignore[assignment]
    for kernels in (True, False):
        with ig.fused(kernels):
            (y,), log_det = layer((x,))
            assert not torch.allclose(y, before)
            torch.testing.assert_close(((y,), log_det), other((x,)))
            torch.testing.assert_close(layer.inverse((y,))[0][0], x, atol=1e-3, rtol=0)
    with pytest.raises(ig.GraphError, match="a transform of 1 parameters per element, for subnets that return 2"):
        layer.transform = ig.Additive()
    assert repr(new[1]) in repr(layer)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"part": 3}, ig.GraphError, "part must be 1 or 2"),
        ({"part": "second"}, ig.GraphError, "part must be 1 or 2"),
        ({"transform": (SPLINE, SPLINE), "sides": 1}, ig.GraphError, "give one transform, or, with sides=2, a pair"),
        ({"transform": (SPLINE,)}, ig.GraphError, "a pair"),
        ({"transform": (SPLINE, "affine")}, ig.ArgumentError, "expected a transform"),
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.Coupling((5,), **{"subnet": MLP, "transform": SPLINE, **args})


def test_clamps_that_are_not_functions_of_s_alone_are_refused() -> None:
    with pytest.raises(ig.GraphError, match="a clamp function needs no activation"):
        ig.Affine(clamp=torch.tanh, activation="tanh")
    with pytest.raises(ig.GraphError, match="a transform has no parameters"):
        ig.Affine(clamp=nn.PReLU())


@pytest.mark.parametrize(("split", "first"), [(0.29, 29), (0.57, 57), (0.58, 58), (0.295, 29), (0.5, 50)])
def test_a_fraction_is_not_rounded_below_the_channels_it_means(split: float, first: int) -> None:
    layer = ig.Coupling((100,), transform=ig.Affine(), subnet=ig.nets.MLP(4), split=split)
    assert layer.sizes == [first, 100 - first]
