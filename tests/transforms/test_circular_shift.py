"""Rotations of the circle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig


def turned(x: Tensor, shift: Tensor, bound: float = math.pi) -> Tensor:
    (y, log_det), (back, minus) = (
        call(x, shift.expand_as(x)[:, None])
        for call in (ig.CircularShift(bound).forward, ig.CircularShift(bound).inverse)
    )
    assert torch.equal(log_det, minus)
    assert not log_det.any()
    assert torch.equal(back, ig.CircularShift(bound).forward(x, -shift.expand_as(x)[:, None])[0])
    return y


@pytest.mark.parametrize("bound", [0.5, math.pi, 180.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_stay_the_angles_they_are(bound: float, dtype: torch.dtype) -> None:
    """Whatever the turn: the result lies in the interval, and is the sum but for whole turns."""
    x = torch.linspace(-1, 1, 1001, dtype=dtype)[:, None] * bound
    for shift in (0.0, 1.0, -0.3, 2.0, 7.3, 1e3):
        y = turned(x, torch.tensor(shift * bound, dtype=dtype), bound)
        assert y.abs().max() <= bound
        turns = (x + shift * bound - y) / (2 * bound)
        assert (turns - turns.round()).abs().max() <= 1e3 * torch.finfo(dtype).eps


def test_angles_outside_count_as_those_inside() -> None:
    x = torch.linspace(-3, 3, 101).double()[:, None]
    for turns in (-2, 1, 5):
        torch.testing.assert_close(turned(x + 2 * math.pi * turns, torch.tensor(0.0).double()), x, rtol=0, atol=1e-13)


def test_what_is_not_finite_stays() -> None:
    x = torch.tensor([[math.inf], [-math.inf], [math.nan]])
    y, _ = ig.CircularShift().forward(x, torch.ones(3, 1, 1))
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)


def test_the_slope_is_one_on_both_sides_of_the_jump() -> None:
    x = torch.linspace(-3, 3, 101).double()[:, None].requires_grad_()
    shift = torch.full((101, 1, 1), 1.5).double().requires_grad_()
    y, _ = ig.CircularShift().forward(x, shift)
    assert all(bool((grad == 1).all()) for grad in torch.autograd.grad(y.sum(), (x, shift)))


class CosSin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.cos(), x.sin()), dim=1)


def subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(CosSin(), nn.Linear(2 * channels_in, 6), nn.ReLU(), nn.Linear(6, channels_out))


def torus() -> ig.Flow:
    x = ig.InputNode(2, name="angles")
    spline: dict[str, Any] = {
        "transform": ig.RationalQuadraticSpline(bound=math.pi, circular=True), "subnet": subnet,
    }  # fmt: skip
    h = ig.chain(x, *[(ig.Coupling, spline), (ig.Elementwise, {"transform": ig.CircularShift()})] * 3)
    end = torch.full((2,), math.pi, dtype=torch.float64)
    graph = ig.testing.randomize(ig.Graph(x, h)).double()
    return ig.Flow(graph, torch.distributions.Uniform(-end, end))


@torch.no_grad()
def test_a_flow_on_a_torus_has_no_seam() -> None:
    """Its density integrates to one, and is the same on both sides of each angle's jump."""
    flow = torus()
    cells = (torch.arange(128).double() + 0.5) / 64 * math.pi - math.pi
    density = flow.log_prob(torch.cartesian_prod(cells, cells)).exp()
    assert density.sum().item() * (math.pi / 64) ** 2 == pytest.approx(1, abs=1e-2)
    edge = torch.full((9,), math.pi, dtype=torch.float64)
    other = torch.linspace(-3, 3, 9).double()
    for pair in ((edge, other), (other, edge)):
        near, far = (torch.stack(pair, 1), torch.stack([torch.where(p == edge, -p, p) for p in pair], 1))
        torch.testing.assert_close(flow.log_prob(near), flow.log_prob(far), rtol=0, atol=1e-10)
    assert flow.sample(1000).abs().max() <= math.pi


def test_the_range_is_that_of_the_circle() -> None:
    flow = torus()
    assert flow.graph.range == flow.graph.domain == ((-math.pi, math.pi),)
    with pytest.raises(ig.GraphError, match="a base the standard normal"):
        ig.Flow(flow.graph)


SEAMS = (ig.RationalQuadraticSpline, ig.QuadraticSpline, ig.CubicSpline, ig.LinearSpline)


@pytest.mark.parametrize("spline", SEAMS)
@pytest.mark.parametrize("learned", [False, True])
def test_a_circular_spline_has_the_slopes_beside_its_seams_at_them(spline: Any, learned: bool) -> None:
    transform = spline(bins=3, bound=math.pi, circular=True, learned_bound=learned)
    params = torch.randn(1, transform.params_per_element, 1, dtype=torch.float64)
    half = math.pi
    if learned:
        half *= math.exp(2 / math.pi * math.atan(params[0, -1, 0].item()))
    for call in (transform.forward, transform.inverse):
        beside = [
            call(torch.full((1, 1), x, dtype=torch.float64), params)[1].item() for x in (1e-9 - half, half - 1e-9)
        ]
        for turn in (-7, -3, -1, 1, 3, 5):
            for seam in (turn * half, math.nextafter(turn * half, 0), math.nextafter(turn * half, math.inf)):
                x = torch.full((1, 1), seam, dtype=torch.float64)
                y, log_det = call(x, params)
                assert min(abs(log_det.item() - value) for value in beside) < 1e-6  # two if the spline is linear
                assert y.item() == pytest.approx(seam, abs=1e-6)
