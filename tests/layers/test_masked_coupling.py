"""Couplings by a mask, and multi-scale splitting with a prior that is conditioned on what is kept (Glow)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize

CONV, MLP = ig.nets.ConvNet(hidden=6), ig.nets.MLP(hidden=8)
AFFINE = ig.Affine(clamp=1.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked(shape: Any, mask: Any, sides: int = 1) -> ig.MaskedCoupling:
    torch.manual_seed(0)
    subnet = CONV if len(shape) > 1 else MLP
    layer = ig.MaskedCoupling(shape, transform=AFFINE, subnet=subnet, mask=mask, sides=sides)
    return randomize(layer.double(), seed=1)


PATTERNS: list[tuple[Any, Any, list[Any]]] = [
    ((5,), "checkerboard", [1, 0, 1, 0, 1]),
    ((4,), "channel", [1, 0, 1, 0]),
    ((1, 4), "checkerboard", [[1, 0, 1, 0]]),
    ((1, 2, 3), "checkerboard", [[[1, 0, 1], [0, 1, 0]]]),
    ((2, 2, 2), "checkerboard", [[[1, 0], [0, 1]]] * 2),
    ((3, 1, 2), "channel", [[[1, 1]], [[0, 0]], [[1, 1]]]),
    ((1, 2, 2, 2), "checkerboard", [[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]]),
]


@pytest.mark.parametrize(("shape", "mask", "kept"), PATTERNS, ids=str)
def test_masked_elements_stay_unchanged_and_determine_the_others(shape: Any, mask: Any, kept: list[Any]) -> None:
    layer, stays = masked(shape, mask), torch.tensor(kept).bool()
    x = normal(4, *shape)
    (y,), _ = layer((x,))
    assert torch.equal(y == x, stays.expand(4, *shape))
    matrix = torch.func.jacrev(lambda x: layer((x[None],))[0][0][0].flatten())(x[0]).flatten(1)
    flat = stays.flatten()
    assert torch.equal(matrix[flat], torch.eye(len(flat), dtype=torch.float64)[flat])
    within = matrix[~flat][:, ~flat]
    assert torch.equal(within, torch.diag(within.diagonal()))
    assert bool(matrix[~flat][:, flat].any())


def test_another_mask_is_another_architecture(tmp_path: Path) -> None:
    """A mask that is given is in no checkpoint, so its digest is; the built-in patterns keep their names."""
    first = torch.tensor([True, True, False, False])
    x = ig.InputNode(4, name="x")

    def build(mask: Any) -> ig.Graph:
        return ig.Graph(x, ig.Node(x, ig.MaskedCoupling, {"transform": AFFINE, "subnet": MLP, "mask": mask}))

    ig.save(tmp_path / "given", build(first))
    ig.load(tmp_path / "given", build(first.clone()))
    for other in (first.flip(0), torch.tensor([True, False, True, False]), "channel"):
        with pytest.raises(ig.CheckpointError, match="mask=given"):
            ig.load(tmp_path / "given", build(other))
    (layer,) = build("channel").layers.values()
    assert layer.extra_repr().endswith("mask=channel")


def test_the_second_side_swaps_the_parts() -> None:
    one, two = masked((2, 3, 3), "checkerboard"), masked((2, 3, 3), "checkerboard", sides=2)
    x = normal(4, 2, 3, 3)
    first, second = one((x,))[0][0], two((x,))[0][0]
    assert torch.equal((first == second), one.mask.logical_not().expand_as(x))
    (back,), _ = two.inverse((second,))
    assert torch.allclose(back, x, rtol=0, atol=1e-13)


def test_a_mask_given_as_a_tensor_is_copied() -> None:
    mask = torch.tensor([True, False, True])
    layer = masked((3,), mask)
    mask.fill_(True)
    assert layer.mask.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("shape", "args", "error", "words"),
    [
        ((2, 1, 1), {}, ig.GraphError, "both parts need at least one element"),
        ((1, 2, 2), {"mask": "channel"}, ig.GraphError, "both parts need at least one element"),
        ((4,), {"mask": torch.ones(4).bool()}, ig.GraphError, "both parts need at least one element"),
        ((4,), {"mask": torch.ones(3).bool()}, ig.GraphError, "expected the shape of the input, (4,)"),
        ((4,), {"mask": torch.ones(4)}, ig.ArgumentError, "a mask is a boolean tensor"),
        ((4,), {"mask": "checkered"}, ig.ArgumentError, "'checkerboard' or 'channel'"),
        ((4,), {"sides": 3}, ig.GraphError, "sides must be 1 or 2"),
        ((4,), {"transform": ig.Sigmoid()}, ig.GraphError, "use it in Elementwise"),
        ((4,), {"transform": None}, ig.ArgumentError, "expected a transform"),
    ],
)
def test_bad_arguments_are_refused(shape: Any, args: dict[str, Any], error: Any, words: str) -> None:
    subnet = MLP if len(shape) == 1 else CONV
    with pytest.raises(error) as caught:
        ig.MaskedCoupling(shape, **({"transform": AFFINE, "subnet": subnet} | args))
    assert words in str(caught.value)


def scales(levels: int = 2) -> ig.Graph:
    """Build Glow's multi-scale structure: each level splits off a half, whose prior depends on the other half."""
    x, c = ig.InputNode(1, 8, 8, name="image"), ig.ConditionNode(3, name="label")
    h: Any = x
    latents = []
    for level in range(levels):
        h = ig.Node(h, ig.Squeeze, name=f"squeeze_{level}")
        h = ig.Node(h, ig.Coupling, {"transform": AFFINE, "subnet": CONV}, conditions=c, name=f"coupling_{level}")
        channels = h.shapes[0][0]
        kept, off = ig.Node(h, ig.Split, {"sizes": (channels // 2, channels // 2)}, name=f"split_{level}")
        # The prior N(mean(kept, c), scale(kept, c)) of what is split off, written as a layer: a value inside the
        # graph is a condition like any other, and the inverse knows it when it needs it.
        args = {"transform": AFFINE, "subnet": CONV}
        latents.append(ig.Node(off, ig.Elementwise, args, conditions=(kept, c), name=f"prior_{level}"))
        h = kept
    return ig.Graph(x, (*latents, h), c)


def test_glows_split_prior_is_an_ordinary_graph() -> None:
    torch.manual_seed(0)
    graph = randomize(scales().double(), seed=2)
    x, c = normal(3, 1, 8, 8), normal(3, 3, seed=1)
    zs, log_det = graph(x, c)
    assert [tuple(z.shape[1:]) for z in zs] == [(2, 4, 4), (4, 2, 2), (4, 2, 2)]
    back, minus = graph.inverse(zs, c)
    assert torch.allclose(back, x, rtol=0, atol=1e-12)
    assert torch.allclose(minus, -log_det, rtol=0, atol=1e-12)

    def latents(x: Tensor, c: Tensor) -> Tensor:
        return torch.cat([z.flatten() for z in graph(x[None], c[None])[0]])

    for row in range(3):
        matrix = torch.func.jacrev(latents)(x[row], c[row]).flatten(1)
        assert torch.allclose(log_det[row], torch.linalg.slogdet(matrix).logabsdet, rtol=0, atol=1e-10)


def test_the_split_prior_is_the_density_of_what_is_split_off() -> None:
    torch.manual_seed(0)
    graph = randomize(scales(levels=1).double(), seed=2)
    x, c = normal(3, 1, 8, 8), normal(3, 3, seed=1)
    (_, kept), _ = graph(x, c)
    flow = ig.Flow(graph)
    # By hand: the density of the half that is split off under the normal that the kept half decides on.
    h, before = graph["coupling_0"]((graph["squeeze_0"]((x,))[0][0],), (c,))
    (kept_too, off), _ = graph["split_0"](h)
    assert torch.equal(kept, kept_too)
    prior = graph["prior_0"]
    zero, one = (prior.inverse((torch.full_like(off, v),), (kept, c))[0][0] for v in (0.0, 1.0))
    own = torch.distributions.Normal(zero, one - zero).log_prob(off).flatten(1).sum(1)
    rest = torch.distributions.Normal(0, 1).log_prob(kept).flatten(1).sum(1)
    assert torch.allclose(flow.log_prob(x, c), own + rest + before, rtol=0, atol=1e-10)


BOUND: dict[str, Any] = {
    "autoregressive": ((4,), ig.Autoregressive, {"transform": AFFINE, "hidden": 12}),
    "iterated": ((4,), ig.Autoregressive, {"transform": AFFINE, "hidden": 12, "tolerance": 1e-13}),
    "masked": ((2, 3, 3), ig.MaskedCoupling, {"transform": AFFINE, "subnet": CONV}),
    "householder": ((2, 3, 3), ig.Householder, {"subnet": MLP}),
    "low_rank": ((3, 2, 2), ig.LowRankLinear, {"rank": 2, "subnet": MLP}),
}


@pytest.mark.parametrize("name", BOUND)
def test_a_bound_graph_computes_what_depends_on_the_condition_once(name: str) -> None:
    shape, cls, args = BOUND[name]
    torch.manual_seed(0)
    x, c = ig.InputNode(*shape, name="x"), ig.ConditionNode(3, name="c")
    graph = randomize(ig.Graph(x, ig.Node(x, cls, args, conditions=c, name="layer"), c).double(), seed=3)
    conditions, z = normal(2, 3), normal(5, 2, *shape, seed=1)
    bound = graph.bind(conditions)
    with torch.no_grad():
        for call, own in ((bound, graph), (bound.inverse, graph.inverse)):
            y, log_det = call(z)
            plain, its = own(z.flatten(0, 1), conditions.repeat(5, 1))
            assert torch.allclose(y.flatten(0, 1), plain, rtol=0, atol=1e-12)
            assert torch.allclose(log_det.flatten(), its, rtol=0, atol=1e-12)
