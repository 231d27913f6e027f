"""The support of a base density: it fits the range of the graph, and holds the latents."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import (
    Beta,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    Independent,
    Kumaraswamy,
    LogNormal,
    Normal,
    Pareto,
    Uniform,
)

import invgraph as ig
from invgraph.numerics.interval import Interval, Part


@pytest.mark.parametrize("event", [0, 1])
def test_an_outlier_of_a_bounded_base_is_named(event: int) -> None:
    """Output, row and values; with validate_args=False the density is the base's own."""
    a, b = ig.InputNode(2, name="a"), ig.InputNode(3, name="b")
    edge = torch.ones(3)
    bounded = Uniform(-edge, edge, validate_args=True)  # another package may have changed the default
    normal = Normal(torch.zeros(2), 1.0, validate_args=True)
    bases = [normal, Independent(bounded, event, validate_args=True)]
    flow = ig.Flow(ig.Graph([a, b], [a, b]), base=bases)
    x, y = torch.zeros(5, 2), torch.zeros(5, 3)
    inside = flow.log_prob((x, y))
    y[3, 1], y[4, 0] = 1.5, -7.0
    with pytest.raises(ig.NumericsError, match=r"(?s)row 3 \(and 1 more\): values from 0 to 1.5\n.*Uniform") as caught:
        flow.log_prob((x, y))
    assert "'b'" in str(caught.value) or "output 1" in str(caught.value)
    with pytest.raises(ig.NumericsError, match="row 0"):
        flow.loss((x * math.nan, y * 0))
    flow.base = (bases[0], Independent(Uniform(-edge, edge, validate_args=False), event, validate_args=False))
    assert torch.equal(flow.log_prob((x, y))[:3], inside[:3])
    assert flow.log_prob((x, y))[3:].tolist() == [-math.inf] * 2


def ending(*transforms: Any, kind: str = "affine") -> ig.Graph:
    x = ig.InputNode(2, name="x")
    h = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)})
    for transform in transforms:
        h = ig.Node(h, ig.Elementwise, {"transform": transform})
    return ig.Graph(x, ig.Node(h, ig.Permute, {"seed": 0}))


def test_a_graph_follows_domain_and_range() -> None:
    real, unit = Interval(), Interval(0, 1)
    assert ending().range == ending().domain == (real,)
    assert ending(ig.Sigmoid()).range == (unit,)
    assert ending(ig.Softplus()).range == (Interval(0, math.inf),)
    assert ending(ig.Sigmoid(), ig.RationalQuadraticSpline(bound=1.0)).range == (Interval(-1, 1),)
    assert ending(ig.Sigmoid(), ig.Affine()).range == (real,)
    assert ig.Inverse(ending(ig.Sigmoid())).domain == ig.reversible(ending(ig.Sigmoid())).range == (unit,)
    x, y = ig.InputNode(4, name="x"), ig.InputNode(2, name="y")
    box = ig.Node(x, ig.Box, {"low": [-1.0, 0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0, 5.0]})
    a, b = ig.Node(box, ig.Split, {"sizes": (2, 2)})
    a = ig.Node(a, ig.Elementwise, {"transform": ig.Sigmoid()})
    b = ig.Node((b, y), ig.Concat)
    graph = ig.Graph([x, y], [a, b])
    assert graph.domain == (Interval(-1, 5), None)
    assert graph.range == (unit, None)  # y is what the data are
    nested = ig.Graph([u := ig.InputNode(4, name="u"), v := ig.InputNode(2, name="v")], list(ig.Node((u, v), graph)))
    assert (nested.domain, nested.range) == (graph.domain, graph.range)


@pytest.mark.parametrize("known", [True, False])
def test_each_element_of_joined_values_has_a_range_of_its_own(known: bool) -> None:
    x, y = ig.InputNode(2, name="x"), ig.InputNode(1, 3, name="y")
    a = ig.Node(ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}), ig.Reshape, {"shape": (1, 2)})
    b = ig.Node(y, ig.Elementwise, {"transform": ig.Affine()}) if known else y
    graph = ig.Graph([x, y], ig.Node(ig.Node((a, b), ig.Concat, {"dim": 1}, name="joined"), ig.Flatten))
    with pytest.raises(ig.GraphError, match=r"element \(0,\) in \(0, 1\).*standard normal on all real.*\n.*2 of 5"):
        ig.Flow(graph)
    wide = Uniform(torch.tensor([0.0, 0.0, -9.0, -9.0, -9.0]), torch.tensor([1.0, 2.0, 9.0, 9.0, 9.0]), **NO_CHECK)
    with pytest.raises(ig.GraphError, match=r"element \(1,\) in \(0, 1\).*Uniform.*on \(0, 2\)"):
        ig.Flow(graph, base=Independent(wide, 1, **NO_CHECK))
    fitting = Uniform(wide.low, torch.tensor([1.0, 1.0, 9.0, 9.0, 9.0]), **NO_CHECK)
    flow = ig.Flow(graph, base=Independent(fitting, 1, **NO_CHECK))
    assert torch.isfinite(flow.log_prob(flow.sample(10))).all()
    ends_without_values = ig.Graph([x, y], ig.Node(ig.Node((a, b), ig.Concat, {"dim": 1}), ig.Permute, {"dim": 1}))
    assert ig.Flow(ends_without_values.to("meta")).dims == 5
    with torch.device("meta"):
        moved = ig.Node(ig.Node(x, ig.Elementwise, {"transform": ig.Affine()}), ig.Permute)
        assert ig.Flow(ig.Graph(x, ig.Node(moved, ig.Elementwise, {"transform": ig.Affine()}))).dims == 2


@pytest.mark.parametrize(("cls", "args"), [(ig.Elementwise, {"transform": ig.Affine()}), (ig.ActNorm, {})])
def test_what_is_made_of_joined_values_is_a_part(cls: Any, args: dict[str, Any]) -> None:
    """The image of the elements between 0 and 1 is not known, whatever the others are."""
    x, y = ig.InputNode(2, name="x"), ig.InputNode(3, name="y")
    bounded = ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()})
    real = ig.Node(y, ig.Elementwise, {"transform": ig.Affine()})
    for parts, fits in (((bounded, real), False), ((bounded, y), False), ((real, x), True)):
        graph = ig.Graph([x, y], ig.Node(ig.Node(parts, ig.Concat), cls, args))
        if fits:
            ig.Flow(graph)
            continue
        with pytest.raises(ig.GraphError, match="a part of all real numbers"):
            ig.Flow(graph)


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_that_is_joined_with_a_whole_stays_a_part(order: int) -> None:
    """Whichever comes first: a part of an interval equals it, as a tuple of two numbers."""
    x, y = ig.InputNode(2, name="x"), ig.InputNode(3, name="y")
    part = x
    for transform in (ig.Sigmoid(), ig.Affine(), ig.Sigmoid()):
        part = ig.Node(part, ig.Elementwise, {"transform": transform})  # type: ignore[assignment]
    whole = ig.Node(y, ig.Elementwise, {"transform": ig.Sigmoid()})
    graph = ig.Graph([x, y], ig.Node((part, whole)[::order], ig.Concat))
    with pytest.raises(ig.GraphError, match=r"a part of \(0, 1\)"):
        ig.Flow(graph, base=Independent(Uniform(torch.zeros(5), torch.ones(5)), 1))
    fitting = ig.Node((ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}), whole)[::order], ig.Concat)
    ig.Flow(ig.Graph([x, y], fitting), base=Independent(Uniform(torch.zeros(5), torch.ones(5)), 1))


NO_CHECK: dict[str, Any] = {"validate_args": False}
ON = {"validate_args": True}  # the default, unless another package has changed it


BOUNDED = Uniform(torch.zeros(2), torch.ones(2), **ON)


@pytest.mark.parametrize(
    ("graph", "base", "words"),
    [
        (ending(), BOUNDED, r"output .*: all real numbers, and a base Uniform on \(0, 1\)\n.*Sigmoid"),
        (ending(ig.Softplus()), BOUNDED, r"positive numbers, and a base Uniform on \(0, 1\)\n.*validate_args=False"),
        (ending(ig.Sigmoid()), None, r"\(0, 1\), and a base the standard normal on all real numbers\n.*no inverse"),
        (ending(ig.Sigmoid()), Independent(Normal(torch.zeros(2), torch.ones(2)), 1), r"a base Independent\(Normal\)"),
        (ending(ig.Sigmoid()), Uniform(-torch.ones(2), torch.ones(2)), r"base Uniform on \(-1, 1\)\n.*no inverse"),
        (ending(), HalfCauchy(torch.ones(2), **ON), r"HalfCauchy\(Cauchy\) on positive numbers"),
    ],
)
def test_a_base_that_does_not_fit_the_range_is_refused(graph: ig.Graph, base: Any, words: str) -> None:
    with pytest.raises(ig.GraphError, match=words):
        ig.Flow(graph, base=base)


@pytest.mark.parametrize(
    ("graph", "base"),
    [
        (ending(ig.Sigmoid()), BOUNDED),
        (ending(), Uniform(torch.zeros(2), torch.ones(2), validate_args=False)),
        (ending(ig.Softplus()), HalfCauchy(torch.ones(2))),
        (ending(ig.Sigmoid(), ig.Logit()), None),
    ],
)
def test_a_base_that_fits_is_taken(graph: ig.Graph, base: Any) -> None:
    flow = ig.Flow(ig.testing.randomize(graph), base=base)
    log_prob = flow.log_prob(flow.sample(50))
    assert bool(log_prob.isfinite().all())


MAPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LearnedScaling": (ig.LearnedScaling, {}),
    "Conv1x1": (ig.Conv1x1, {}),
    "Affine": (ig.Elementwise, {"transform": ig.Affine()}),
    "Sigmoid": (ig.Elementwise, {"transform": ig.Sigmoid()}),
    "Spline": (ig.Elementwise, {"transform": ig.RationalQuadraticSpline(bound=5.0)}),
    "Coupling": (ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}),
    "Coupling of one side": (ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4), "sides": 1}),
    "Standardize": (ig.Standardize, {"mean": 0.5, "std": 0.3}),
    "Box": (ig.Box, {"low": -1.0, "high": 1.0}),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_layer_after_a_bounded_one_makes_no_whole_range_of_a_part(name: str) -> None:
    cls, args = MAPS[name]
    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}), cls, args))
    assert not graph.range[0].covers(Interval())
    with pytest.raises(ig.GraphError, match="no inverse where the base draws latents"):
        ig.Flow(graph)
    with pytest.raises(ig.GraphError, match="base Uniform"):
        ig.Flow(graph, Uniform(torch.zeros(2), torch.ones(2), validate_args=True))


def test_rounding_is_relative_to_the_ends_of_an_interval() -> None:
    assert not Interval(0.0, 1e-9).covers(Interval(0.0, 5e-7))
    assert Interval(0.0, 1e-9).covers(Interval(-1e-16, 1.0000001e-9))
    assert Interval(-1e9, 1e9).covers(Interval(-1e9 - 64, 1e9))
    assert Interval(0.0).covers(Interval(-1e-7, 1.0))
    assert Interval().covers(Interval())


def test_standardized_data_have_the_ends_that_follow() -> None:
    x = ig.InputNode(2, name="x")
    h = ig.Node(x, ig.Standardize, {"mean": 3.0, "std": [2.0, 0.5]})
    graph = ig.Graph(x, ig.Node(h, ig.Box, {"low": 0.0, "high": 1.0}))
    assert graph.domain == (Interval(3, 5),)
    back = ig.Graph(x, ig.Node(ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}), ig.Standardize, {"std": 0.5}))
    assert back.range == (Interval(0, 2),)
    ig.Flow(back, Uniform(torch.zeros(2), torch.full((2,), 2.0)))


@pytest.mark.parametrize(
    ("given", "learned", "low", "high", "known"),
    [
        (Interval(0, 4), False, -3, 9, False),
        (Interval(-3, 9), False, -3, 9, True),
        (Interval(-3.000001, 9.000001), False, -3, 9, True),
        (Interval(-2, 2), False, -3, 3, False),
        (Interval(4, 5), False, 3, 9, False),
        (Interval(-math.inf, 4), False, -math.inf, 9, False),
        (Interval(), False, -math.inf, math.inf, True),
        (Interval(-3, 3), True, -3 - 6 * math.e, 3 + 6 * math.e, False),
        (Interval(), True, -math.inf, math.inf, True),
    ],
)
def test_a_circular_spline_maps_whole_turns_onto_themselves(
    given: Interval, learned: bool, low: float, high: float, known: bool
) -> None:
    for inverse in (False, True):
        spline = ig.LinearSpline(bound=3.0, circular=True, learned_bound=learned)
        found = spline.follow(given, inverse=inverse)
        assert found == pytest.approx((low, high), abs=1e-5)
        assert isinstance(found, Part) is not known


@pytest.mark.parametrize("layer", [(ig.Standardize, {"learned": True}), (ig.LearnedScaling, {})])
def test_a_learned_scale_does_not_keep_its_ends(layer: Any) -> None:
    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}), *layer))
    with pytest.raises(ig.GraphError, match="a part of all real numbers"):
        ig.Flow(graph, Uniform(torch.zeros(2), torch.ones(2)))


def test_the_domain_of_a_learned_map_into_a_box_is_a_part() -> None:
    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(ig.Node(x, ig.LearnedScaling), ig.Box, {"low": 0.0, "high": 1.0}))
    assert str(graph.domain[0]) == "a part of all real numbers"
    assert str(graph.range[0]) == "all real numbers"


OUTSIDE: dict[str, Any] = {
    "Exponential": lambda **k: Exponential(torch.ones(1), **k),
    "Gamma": lambda **k: Gamma(torch.full((1,), 2.0), torch.ones(1), **k),
    "Beta": lambda **k: Beta(torch.full((1,), 2.0), torch.full((1,), 3.0), **k),
    "LogNormal": lambda **k: LogNormal(torch.zeros(1), torch.ones(1), **k),
    "Pareto": lambda **k: Pareto(torch.ones(1), torch.ones(1), **k),
    "Kumaraswamy": lambda **k: Kumaraswamy(torch.full((1,), 2.0), torch.full((1,), 2.0), **k),
    "Uniform": lambda **k: Uniform(torch.zeros(1), torch.ones(1), **k),
    "HalfNormal": lambda **k: HalfNormal(torch.ones(1), **k),
}


@pytest.mark.parametrize("event", [0, 1])
@pytest.mark.parametrize("name", OUTSIDE)
def test_without_validation_the_density_outside_is_zero(name: str, event: int) -> None:
    x = ig.InputNode(1, name="x")
    base = Independent(OUTSIDE[name](validate_args=False), event, validate_args=False)
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Additive()})), base)
    inside = torch.full((1, 1), 1.5 if name == "Pareto" else 0.5)
    data = torch.cat((torch.tensor([[-5.0], [-50.0]]), inside)).requires_grad_()
    log_prob = flow.log_prob(data)
    assert log_prob[:2].tolist() == [-math.inf, -math.inf]
    assert log_prob[2].item() == pytest.approx(OUTSIDE[name]().log_prob(inside).item(), abs=1e-6)
    if name != "Uniform":  # whose density is flat
        (gradient,) = torch.autograd.grad(log_prob[2], data)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("validate", [False, True])
def test_a_layer_that_rounds_to_an_end_keeps_the_density_finite(validate: bool) -> None:
    x = ig.InputNode(1, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}))
    flow = ig.Flow(graph, Uniform(torch.zeros(1), torch.ones(1), validate_args=validate))
    values = torch.tensor([[-200.0], [-20.0], [16.0], [17.0], [20.0]])
    assert torch.allclose(flow.log_prob(values), -values[:, 0].abs(), rtol=1e-5)
    softplus = ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Softplus()}))
    flow = ig.Flow(softplus, LogNormal(torch.zeros(1), torch.ones(1), validate_args=validate))
    assert bool(flow.log_prob(torch.tensor([[-200.0]])).isfinite())
    turn = ig.Graph(
        x, ig.Node(x, ig.Elementwise, {"transform": ig.RationalQuadraticSpline(circular=True, bound=math.pi)})
    )
    circle = Uniform(torch.full((1,), -math.pi), torch.full((1,), math.pi), validate_args=validate)
    ends = ig.Flow(turn, circle).log_prob(torch.tensor([[-math.pi], [math.pi]]))
    assert torch.allclose(ends, torch.full((2,), -math.log(2 * math.pi)), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MAPS if name not in ("Sigmoid", "Box", "Standardize")])
def test_dequantized_data_need_no_logit(name: str) -> None:
    """The base has mass outside of the data, as in Glow; samples there are taken for the nearest integers."""
    cls, args = MAPS[name]
    x = ig.InputNode(2, 2, 2, name="x")
    h = ig.Node(ig.Node(x, ig.Dequantize), ig.Reshape, {"shape": (8,)})
    if cls is ig.Coupling:
        args = {**args, "transform": ig.RationalQuadraticSpline(bound=5.0)}
    flow = ig.Flow(ig.Graph(x, ig.Node(h, cls, args)))
    samples = flow.sample(20)
    assert torch.equal(samples, samples.round())
    with pytest.raises(ig.GraphError, match=r"\(0, 1\)"):
        ig.Flow(ig.Graph(x, h))
