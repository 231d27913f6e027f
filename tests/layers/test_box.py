"""Boxes, and fixed standardization: edges, other units, and arguments that do not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import invgraph as ig


def bounded_flow() -> ig.Flow:
    x = ig.InputNode(2, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    box = {"low": [0.0, -3.0], "high": [2.0, -1.0]}
    return ig.Flow(ig.Graph(x, ig.chain(x, (ig.Box, box), (ig.Coupling, args))))


def test_the_density_is_minus_infinity_outside_and_finite_at_the_ends() -> None:
    points = torch.tensor([[1.0, -2.0], [0.0, -1.0], [2.0, -3.0], [2.1, -2.0], [1.0, -0.9], [math.nan, -2.0]])
    log_prob = bounded_flow().log_prob(points).tolist()
    assert all(math.isfinite(value) for value in log_prob[:3])
    assert log_prob[3:5] == [-math.inf, -math.inf]
    assert math.isnan(log_prob[5])


@torch.no_grad()
def test_samples_stay_inside_and_have_a_finite_density() -> None:
    x = ig.InputNode(2, name="x")
    box = {"low": [0.0, -3.0], "high": [2.0, -1.0]}
    wide = torch.distributions.Normal(torch.zeros(2), 100.0)  # most samples saturate
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Box, box)), base=wide)
    samples = flow.sample(2000)
    low, high = torch.tensor(box["low"]), torch.tensor(box["high"])
    assert ((samples >= low) & (samples <= high)).all()
    assert flow.log_prob(samples).isfinite().all()


@pytest.mark.parametrize("mean", [-11.0, 11.0])  # samples are rounded to an end, the lower or the upper one
@pytest.mark.parametrize("ends", [(100.0, 101.0), (-101.0, -100.0)])
@torch.no_grad()
def test_samples_rounded_to_an_end_count_as_the_number_next_to_it(mean: float, ends: tuple[float, float]) -> None:
    low, high = map(torch.tensor, ends)
    x = ig.InputNode(1, name="x")
    h = ig.chain(x, (ig.Box, {"low": low, "high": high}), (ig.Standardize, {"mean": mean}))
    flow = ig.Flow(ig.Graph(x, h))
    near = torch.stack((low, low.nextafter(high), high.nextafter(low), high)).unsqueeze(1)
    log_prob = flow.log_prob(near).tolist()
    assert log_prob[0] == pytest.approx(log_prob[1], abs=2)  # a number next to an end is one or two steps away
    assert log_prob[3] == pytest.approx(log_prob[2], abs=2)
    samples, exact = flow.sample_and_log_prob(4000)
    assert ((samples == low) | (samples == high)).sum() > 100
    assert flow.log_prob(samples).mean().item() == pytest.approx(exact.mean().item(), abs=1)


def test_the_density_in_a_box_integrates_to_one() -> None:
    flow = bounded_flow().double()
    centers = (torch.arange(400, dtype=torch.float64) + 0.5) / 200
    points = torch.cartesian_prod(centers, centers - 3)
    with torch.no_grad():
        assert flow.log_prob(points).exp().mean().item() * 4 == pytest.approx(1, abs=1e-3)


def test_the_domain_is_checked_on_request() -> None:
    x = ig.InputNode(1, 2, name="x")
    box = {"low": [[0.0, -3.0]], "high": [[2.0, -1.0]], "check_domain": True}
    graph = ig.Graph(x, ig.Node(x, ig.Box, box))
    points = torch.tensor([[[0.0, -1.0]], [[math.nan, -2.0]]])
    assert graph(points)[1].shape == (2,)  # the ends belong to the box, and NaN passes
    points[1] = torch.tensor([[1.0, -0.5]])
    words = r"node 'box_0' \(Box\)\n.*1 values outside the box.*row 1, element \(0, 1\): -0.5\n.*between -3 and -1"
    with pytest.raises(ig.NumericsError, match=words):
        graph(points)
    assert graph.inverse(points)[1].isfinite().all()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ig.Box((2,), low=0.0, high=1.0, check_domain=1), ig.ArgumentError, "check_domain"),
        (lambda: ig.Box((2,), low=0.0, high=[1.0, 0.0]), ig.GraphError, "at element 1"),
        (lambda: ig.Box((2,), low=[0.0] * 3, high=1.0), ig.GraphError, r"expected \(2,\)"),
        (lambda: ig.Box((2,), low=0.0, high=math.inf), ig.GraphError, "high must be finite"),
        (lambda: ig.Box((2,), low=0.0, high=1e300), ig.GraphError, "high must be finite, in the default dtype"),
        (
            lambda: ig.Box((2,), low=[0.0, 1e9], high=[1.0, 1e9 + 1]),
            ig.GraphError,
            "element 1.*\n.*above zero in torch.f",
        ),
        (lambda: ig.Box((2,), low=-3e38, high=3e38), ig.GraphError, "difference a number above zero"),
        (lambda: ig.Standardize((2,), std=[1.0, 1e-50]), ig.GraphError, "std must be positive"),
        (lambda: ig.Box((2,), low="a", high=1.0), ig.ArgumentError, "low must be a tensor"),
        (lambda: ig.Standardize((2,), mean=0.0, std=[1.0, 0.0]), ig.GraphError, "std must be positive"),
        (lambda: ig.Standardize((2,), mean=[[0.0, 0.0]], std=1.0), ig.GraphError, r"expected \(2,\)"),
        (lambda: ig.Standardize((2,), mean=math.nan, std=1.0), ig.GraphError, "mean must be finite"),
        (lambda: ig.Standardize((2,), mean=None, std=1.0), ig.ArgumentError, "mean must be a tensor"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_the_ends_of_a_wider_dtype_are_those_that_were_given() -> None:
    ends = torch.tensor([[0.1, 0.7], [0.7, 0.1]], dtype=torch.float64)
    box = ig.Box((2,), low=[0.1, 0.1], high=[0.7, 0.7]).double()
    assert torch.equal(box.low, ends.amin(0))
    assert bool(box((ends,))[1].isfinite().all())
    assert torch.equal(box.half().double().high, ends.amax(0))
    other = ig.Box((2,), low=[0.0, 0.0], high=[1.0, 1.0])
    other.load_state_dict(ig.Box((2,), low=[0.1, 0.1], high=[0.7, 0.7]).state_dict())
    assert torch.equal(other.double().low, torch.tensor([0.1, 0.1]).double())  # of the state, in float32
