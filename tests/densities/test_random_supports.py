"""Random graphs of joined values: a base that a flow accepts draws latents that the graph takes back and returns."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch.distributions import Distribution, Exponential, Independent, Uniform

import invgraph as ig
from invgraph.testing import randomize

SPLINES = [ig.RationalQuadraticSpline(bound=bound) for bound in (1.0, 3.0)]
TRANSFORMS = [ig.Sigmoid(), ig.Softplus(), ig.Affine(), *SPLINES]


def layer(draw: random.Random, h: Any) -> Any:
    choices: list[tuple[type[ig.Invertible], dict[str, Any]]] = [
        *((ig.Elementwise, {"transform": draw.choice(TRANSFORMS)}) for _ in range(3)),
        (ig.LearnedScaling, {}),
    ]
    if h.shape[0] > 1:
        subnet = ig.nets.MLP(4)
        coupled = draw.choice([ig.Affine(), ig.RationalQuadraticSpline(bound=1.0)])
        choices += [(ig.Permute, {}), (ig.Coupling, {"transform": coupled, "subnet": subnet})]
    return ig.Node(h, *draw.choice(choices))


def graph(draw: random.Random) -> ig.Graph:
    xs = [ig.InputNode(draw.randint(1, 3), name=f"x{k}") for k in range(draw.randint(2, 3))]
    parts: list[Any] = list(xs)
    for k in range(len(parts)):
        for _ in range(draw.randint(0, 3)):
            parts[k] = layer(draw, parts[k])
    h: Any = ig.Node(tuple(parts), ig.Concat)
    for _ in range(draw.randint(0, 2)):
        h = layer(draw, h)
    return ig.Graph(xs, h)


def base(draw: random.Random, size: int) -> Distribution | None:
    ones, no = torch.ones(size), {"validate_args": False}
    bases = [Uniform(0 * ones, ones, **no), Uniform(-ones, ones, **no), Exponential(ones, **no)]
    return draw.choice([None, *(Independent(one, 1, **no) for one in bases)])


def test_accepted_bases_draw_where_the_graph_has_an_inverse() -> None:
    draw, accepted, refused = random.Random(0), 0, 0
    for _ in range(600):
        whole = graph(draw)
        (size,) = whole.out_shapes[0]
        own = base(draw, size)
        try:
            ig.Flow(whole, base=own)
        except ig.GraphError:
            refused += 1
            continue
        accepted += 1
        randomize(whole.double(), scale=0.3)
        z = (torch.randn(100, size) if own is None else own.sample((100,))).double()
        x, there = whole.inverse(z)
        again, back = whole(x)
        torch.testing.assert_close(again, z, rtol=1e-6, atol=1e-6, msg=lambda text: f"{text}\n{whole}\n{own}")  # noqa: B023
        torch.testing.assert_close(back, -there, rtol=1e-5, atol=1e-5)
    assert min(accepted, refused) > 200
