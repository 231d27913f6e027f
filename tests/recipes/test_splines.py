"""The recipe gives a flow in the units of the data, for every combination of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import invgraph as ig

SMALL: dict[str, Any] = {"blocks": 1, "hidden": 8}


@pytest.mark.parametrize("autoregressive", [False, True])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("features", [1, 2, 5])
def test_every_size(features: int, context: int, autoregressive: bool) -> None:
    data, conditions = 100 + 5 * torch.randn(50, features), torch.randn(50, context) if context else None
    flow = ig.recipes.spline_flow(
        features, context, data=data, conditions=conditions, autoregressive=autoregressive, **SMALL
    )
    c: Any = () if conditions is None else conditions
    assert flow.log_prob(data, c).shape == (50,)
    drawn = flow.sample(200) if conditions is None else flow.sample(200, conditions[:1])[:, 0]
    assert (drawn.mean(0) - data.mean(0)).abs().max() < 5


def test_a_series_is_summarized() -> None:
    series = torch.randn(10, 2, 30)
    summary = ig.nets.SeriesSummary(2, 30, 4)
    flow = ig.recipes.spline_flow(2, (2, 30), conditions=series, summary=summary, **SMALL)
    assert flow.log_prob(torch.zeros(10, 2), series).shape == (10,)
    assert list(flow.graph.layers)[:2] == ["standardized", "summary"]


def test_flows_do_not_share_a_summary() -> None:
    summary = nn.Linear(3, 4)
    nets = [ig.recipes.spline_flow(2, 3, summary=summary, **SMALL).graph["summary"] for _ in range(2)]
    assert len({id(net.weight) for net in (*nets, summary)}) == 3
    assert torch.equal(nets[0].weight, summary.weight)


def test_the_checkpoint_holds_the_statistics() -> None:
    data = 7 + torch.randn(50, 2)
    flow = ig.recipes.spline_flow(2, data=data, **SMALL)
    other = ig.recipes.spline_flow(2, data=torch.randn(50, 2), **SMALL)
    other.load_state_dict(flow.state_dict())
    torch.testing.assert_close(other.log_prob(data), flow.log_prob(data))


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"features": 0}, ig.GraphError, "positive"),
        ({"features": 2, "context": (2, 9)}, ig.GraphError, "give a summary"),
        ({"features": 2, "context": True}, ig.ArgumentError, "context=True"),
        ({"features": 2, "context": None}, ig.ArgumentError, "context=None"),
        ({"features": 2, "context": (2.5,)}, ig.ArgumentError, "must be an int, not a float"),
        ({"features": 2, "summary": nn.Identity()}, ig.ArgumentError, "give context"),
        ({"features": 2, "autoregressive": 1}, ig.ArgumentError, "autoregressive must be True or False"),
        ({"features": 3, "data": torch.randn(9, 1)}, ig.ShapeError, r"expected \(N, 3\)"),
        ({"features": 2, "data": torch.randn(1, 2)}, ig.ShapeError, "N at least 2"),
        ({"features": 2, "data": "x"}, ig.ArgumentError, "data must be a tensor"),
        ({"features": 2, "context": 3, "conditions": torch.randn(9, 1)}, ig.ShapeError, r"expected \(N, 3\)"),
        ({"features": 2, "bounds": (0.0, 1.0, 2.0)}, ig.ArgumentError, "bounds must be two"),
        (
            {"features": 2, "bounds": (0.0, 1.0), "data": torch.ones(9, 2).cumsum(0)},
            ig.NumericsError,
            "outside the box",
        ),
    ],
)
def test_bad_arguments(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.recipes.spline_flow(**args)


def test_statistics_of_integers_and_sizes_of_numpy() -> None:
    data = torch.tensor([[1, 10], [3, 30]])
    flow = ig.recipes.spline_flow(2, np.int64(3), data=data, conditions=torch.arange(9).view(3, 3), **SMALL)
    torch.testing.assert_close(flow.graph["scaled"].mean, torch.tensor([2.0, 20.0]))
    assert flow.graph.cond_shapes == ((3,),)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_bounded_elements_stay_in_their_bounds(autoregressive: bool) -> None:
    low, high = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 30.0])
    data = low + (high - low) * torch.rand(200, 2)
    flow = ig.recipes.spline_flow(2, data=data, bounds=(low, high), autoregressive=autoregressive, **SMALL)
    drawn = flow.sample(500)
    assert ((drawn >= low) & (drawn <= high)).all()
    assert flow.log_prob(data).isfinite().all()
    assert flow.log_prob(high[None] + 1) == -torch.inf
    z = flow.graph(data)[0]
    torch.testing.assert_close(z.std(), torch.tensor(1.0), atol=0.2, rtol=0)
    bare = ig.recipes.spline_flow(2, bounds=(0.0, 1.0), **SMALL)
    assert bare.given().support.check(bare.sample(100)).all()


@pytest.mark.parametrize("features", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_every_element_depends_on_every_other_by_default(features: int, autoregressive: bool) -> None:
    flow = ig.recipes.spline_flow(features, 2, hidden=8, autoregressive=autoregressive)
    graph = ig.testing.randomize(flow.graph).double()
    x, c = torch.randn(1, features, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: graph(x, c)[0][0], x)[:, 0]
    assert bool((jacobian != 0).all())  # exactly zero where nothing connects two elements


def test_couplings_exchange_elements_between_their_halves() -> None:
    def layers(features: int) -> list[str]:
        return [type(layer).__name__ for layer in ig.recipes.spline_flow(features, hidden=8).graph.layers.values()]

    assert layers(2) == ["Coupling", "Conv1x1"] * 3
    assert layers(5) == ["Coupling", "Permute"] * 2 + ["Coupling"]


def test_the_number_of_blocks_is_that_of_the_kind_of_layer() -> None:
    def blocks(**arguments: Any) -> int:
        return sum(name.startswith("spline_") for name in ig.recipes.spline_flow(4, hidden=8, **arguments).graph.layers)

    assert (blocks(), blocks(autoregressive=True), blocks(blocks=2)) == (3, 4, 2)


def test_conditions_with_nan_are_named_as_such() -> None:
    conditions = torch.randn(20, 3)
    conditions[4, 1] = torch.nan
    with pytest.raises(ig.GraphError, match="mean or std with NaN or infinity"):
        ig.recipes.spline_flow(2, 3, conditions=conditions)
