"""The support of a flow is where its density is positive, element by element, for whatever layers confine it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    Uniform,
    biject_to,
    constraints,
)

import invgraph as ig
from invgraph.distributions.support import as_constraint
from invgraph.testing import randomize

LOW, HIGH = torch.tensor([0.0, -1.0, 2.0]), torch.tensor([1.0, 3.0, 2.5])
ENDS = {"low": LOW, "high": HIGH}


def spline_behind(*layers: tuple[Any, dict[str, Any]]) -> ig.Graph:
    x = ig.InputNode(3, name="x")
    h: Any = x
    for layer, args in layers:
        h = ig.Node(h, layer, args) if args else ig.Node(h, layer)
    spline = {"transform": ig.RationalQuadraticSpline(bins=4), "subnet": ig.nets.MLP(hidden=8)}
    graph = ig.Graph(x, ig.Node(h, ig.Coupling, spline))
    randomize(graph)
    return graph


def box() -> ig.Graph:
    return spline_behind((ig.Box, ENDS))


def moved_box() -> ig.Graph:
    order = (2, 0, 1)
    return spline_behind((ig.Permute, {"order": order}), (ig.Box, {"low": LOW[[*order]], "high": HIGH[[*order]]}))


def split_box() -> ig.Graph:
    """A box around the last element alone, inside a nested graph, behind a permutation."""
    y = ig.InputNode(3, name="y")
    moved = ig.Node(y, ig.Permute, {"order": (2, 0, 1)})
    parts = ig.Node(moved, ig.Split, {"sizes": (1, 2)})
    held = ig.Node(parts[0], ig.Box, {"low": 2.0, "high": 2.5})
    return spline_behind((ig.Graph(y, ig.Node([held, parts[1]], ig.Concat)), {}))


REAL = -torch.inf * torch.ones(3), torch.inf * torch.ones(3)
SUPPORTS = {
    "no box": (lambda: spline_behind(), None, REAL),
    "a box": (box, None, (LOW, HIGH)),
    "a box behind a permutation": (moved_box, None, (LOW, HIGH)),
    "a box in other units": (
        lambda: spline_behind((ig.Standardize, {"mean": [1.0, 2.0, 3.0], "std": [2.0, 1.0, 0.5]}), (ig.Box, ENDS)),
        None,
        (torch.tensor([1.0, 1.0, 4.0]), torch.tensor([3.0, 5.0, 4.25])),
    ),
    "a box around one element": (
        split_box,
        None,
        (torch.tensor([-torch.inf, -torch.inf, 2.0]), torch.tensor([torch.inf, torch.inf, 2.5])),
    ),
    "positive numbers": (
        lambda: spline_behind((ig.Inverse(ig.Elementwise((3,), transform=ig.Softplus())), {})),
        None,
        (torch.zeros(3), torch.inf * torch.ones(3)),
    ),
    "a bounded base": (
        lambda: spline_behind((ig.Standardize, {"mean": 1.0, "std": [1.0, 2.0, 3.0]})),
        lambda: Independent(Uniform(torch.full((3,), -3.0), 3.0, validate_args=False), 1),
        (torch.tensor([-2.0, -5.0, -8.0]), torch.tensor([4.0, 7.0, 10.0])),
    ),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_support_is_where_the_density_is_positive(name: str) -> None:
    build, base, (low, high) = SUPPORTS[name]
    flow = ig.Flow(build(), None if base is None else base())
    density = flow.given()
    support = density.support
    assert support.event_dim == 1
    x = density.sample((500,))
    assert support.check(x).all()
    middle = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, low.clamp(min=0) + 1)
    for element in range(3):
        for end, sign in ((low, -1), (high, 1)):
            if not end[element].isfinite():
                continue
            inside, outside = middle.clone(), middle.clone()
            inside[element], outside[element] = end[element] - 0.01 * sign, end[element] + 0.01 * sign
            assert support.check(inside)
            assert not support.check(outside)
            assert density.log_prob(inside).isfinite()
            assert density.log_prob(outside) == -torch.inf


def test_unbounded_densities_have_torchs_real_numbers() -> None:
    support: Any = ig.Flow(spline_behind()).given().support
    assert support.base_constraint is constraints.real


@pytest.mark.parametrize("name", ["a box", "positive numbers", "no box"])
def test_torch_maps_real_numbers_to_the_support(name: str) -> None:
    density = ig.Flow(SUPPORTS[name][0]()).given()
    mapped = biject_to(density.support)(torch.randn(200, 3))
    assert density.support.check(mapped).all()
    assert density.log_prob(mapped).isfinite().all()


def test_bounds_from_above_and_bounds_of_some_elements() -> None:
    high = torch.tensor([1.0, 2.0])
    below = as_constraint(torch.stack((torch.full((2,), -torch.inf), high)), (2,))
    assert below.check(torch.tensor([[0.0, 1.0], [1.5, 1.0]])).tolist() == [True, False]
    assert below.check(biject_to(below)(torch.randn(50, 2))).all()
    some = as_constraint(torch.tensor([[-torch.inf, 0.0], [1.0, torch.inf]]), (2,))
    assert some.check(torch.tensor([[0.0, 1.0], [1.5, 1.0], [0.0, -1.0]])).tolist() == [True, False, False]


def test_a_transform_has_the_domain_and_the_range_of_its_graph() -> None:
    transform = box().transform()
    assert transform.codomain.check(100 * torch.randn(5, 3)).all()
    assert transform.domain.check(torch.stack((LOW, HIGH, HIGH + 1))).tolist() == [True, True, False]
    base = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    density = TransformedDistribution(base, [transform.inv], validate_args=True)
    assert density.support.check(density.sample((500,))).all()
    with pytest.raises(ValueError, match="within the support"):
        density.log_prob(HIGH + 1)


def test_the_support_follows_its_flow() -> None:
    flow = ig.Flow(ig.reversible(box()))
    density = flow.given()
    flow.double()
    low: Tensor = density.support.base_constraint.lower_bound  # type: ignore[attr-defined]
    assert low.dtype == torch.float64
    assert density.support.check(density.sample((10,))).all()


def test_a_mixture_of_bounded_flows_refuses_what_lies_outside() -> None:
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    x, c = ig.InputNode(3, name="x"), ig.ConditionNode(2, name="c")
    h = ig.Node(ig.Node(x, ig.Box, ENDS), ig.Coupling, args, conditions=c)
    components = ig.Flow(ig.Graph(x, h, c)).given(torch.randn(4, 2))
    density = MixtureSameFamily(Categorical(torch.ones(4)), components, validate_args=True)
    assert density.log_prob(density.sample((50,))).isfinite().all()
    with pytest.raises(ValueError, match="within the support"):
        density.log_prob(HIGH + 1)
