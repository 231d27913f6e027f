"""Base densities with validation, which torch.export can't follow, are exported without it, and keep it themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributions as D  # noqa: N812
from torch.distributions import Distribution

import invgraph as ig

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

ZEROS, ONES, EYE = torch.zeros(4).double(), torch.ones(4).double(), torch.eye(4).double()


def normals(**more: Any) -> Distribution:
    return D.Independent(D.Normal(ZEROS, ONES, **more), 1, **more)


def mixture(**more: Any) -> Distribution:
    weights = D.Categorical(torch.ones(3).double(), **more)
    means = torch.linspace(-1, 1, 12).double().view(3, 4)
    return D.MixtureSameFamily(weights, D.Independent(D.Normal(means, 1.0, **more), 1, **more), **more)


def flow_of(base: Any = None, layer: Any = None) -> ig.Flow:
    x = ig.InputNode(4, name="x")
    h = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}, name="c1")
    h = h if layer is None else ig.Node(h, ig.Elementwise, {"transform": layer}, name="last")
    graph = ig.testing.randomize(ig.Graph(x, h).double())
    return ig.Flow(graph, base)


BASES: dict[str, Callable[[], Distribution]] = {
    "MultivariateNormal": lambda: D.MultivariateNormal(ZEROS, EYE),
    "asked for": lambda: D.MultivariateNormal(ZEROS, EYE, validate_args=True),
    "switched off": lambda: D.MultivariateNormal(ZEROS, EYE, validate_args=False),
    "StudentT": lambda: D.StudentT(3 * ONES, ZEROS, ONES),
    "Independent": normals,
    "Independent, asked for": lambda: normals(validate_args=True),
    "MixtureSameFamily": lambda: mixture(validate_args=True),
    "TransformedDistribution": lambda: D.TransformedDistribution(
        normals(validate_args=True), [D.TanhTransform().inv, D.AffineTransform(ZEROS, 2 * ONES)], validate_args=True
    ),
    "LowRankMultivariateNormal": lambda: D.LowRankMultivariateNormal(ZEROS, torch.ones(4, 1).double(), ONES),
    "a flow": lambda: flow_of(mixture(validate_args=True)).given(),
}


def agrees(flow: ig.Flow) -> None:
    program = ig.export(flow, "log_prob").module()
    for batch in (1, 5):
        x = torch.randn(batch, 4, dtype=torch.float64)
        assert torch.allclose(program(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)


def parts_of(base: Distribution) -> list[Distribution]:
    """Return a distribution and those inside it."""
    inner = [part for part in vars(base).values() if isinstance(part, Distribution)]
    return [base, *(other for part in inner for other in parts_of(part))]


@pytest.mark.parametrize("name", BASES)
def test_a_base_is_exported_and_keeps_its_validation(name: str) -> None:
    base = BASES[name]()
    parts, default = parts_of(base), Distribution._validate_args
    before = [vars(part).get("_validate_args") for part in parts]
    flow = flow_of(base)
    agrees(flow)
    assert flow.base == (base,)
    assert Distribution._validate_args == default
    assert parts_of(base) == parts
    assert [vars(part).get("_validate_args") for part in parts] == before


def test_values_outside_the_support_are_refused_by_the_model_alone() -> None:
    base = D.Independent(D.Uniform(-ONES, ONES, validate_args=True), 1)  # Pyro changes the default
    x = ig.InputNode(4, name="x")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Permute, {"order": (3, 2, 1, 0)})), base)
    program = ig.export(flow, "log_prob").module()
    inside, outside = torch.full((2, 4), 0.5).double(), torch.full((2, 4), 3.0).double()
    assert torch.equal(program(inside), flow.log_prob(inside))
    assert program(outside).eq(-torch.inf).all()
    with pytest.raises(ig.NumericsError, match="outside the support"):
        flow.log_prob(outside)


def test_a_bounded_base_behind_a_sigmoid() -> None:
    agrees(flow_of(D.Independent(D.Beta(2 * ONES, 3 * ONES), 1), ig.Sigmoid()))


def test_several_bases() -> None:
    x = ig.InputNode(4, name="x")
    a, b = ig.Node(ig.Node(x, ig.Permute, {"order": (2, 0, 3, 1)}), ig.Split, {"sizes": (1, 3)}, name="parts")
    base = (D.StudentT(3 * ONES[:1]), D.MultivariateNormal(ZEROS[:3], EYE[:3, :3]))
    agrees(ig.Flow(ig.Graph(x, [a, b]), base))


def test_a_refused_export_leaves_the_base_alone() -> None:
    x = ig.InputNode(4, name="x")
    base = D.MultivariateNormal(ZEROS, EYE)
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.ActNorm, name="an")).double(), base)
    with pytest.raises(ig.GraphError, match="call initialize"):
        ig.export(flow)
    assert flow.base == (base,)
    assert "_validate_args" not in vars(base)
