"""Ranks and coverage of densities that are right, too narrow and too wide; the band is binomial."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.inference import Calibration, calibrate


class Normal:
    """A normal density round the condition, of a given deviation; the truth has deviation one."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def sample(self, n: int, c: Tensor) -> Tensor:
        return c + self.deviation * torch.randn(n, *c.shape)

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.distributions.Normal(c, self.deviation).log_prob(x).sum(1)


def pairs(count: int) -> tuple[Tensor, Tensor]:
    c = torch.randn(count, 2)
    return c + torch.randn(count, 2), c


def test_the_truth_is_calibrated() -> None:
    result = calibrate(Normal(1.0), *pairs(2000), draws=199)
    low, high = result.band(probability=0.9999)
    counts = result.histogram()
    assert counts.sum(1).tolist() == [2000, 2000]
    assert ((counts >= low) & (counts <= high)).all()
    levels, coverage = result.coverage()
    torch.testing.assert_close(coverage, levels, atol=0.04, rtol=0)


class Coin:
    """Zero or one, whose probability is the condition, for the first element; the second one is flat and continuous."""

    def sample(self, n: int, c: Tensor) -> Tensor:
        return torch.cat((torch.bernoulli(c.expand(n, *c.shape)), torch.rand(n, *c.shape)), -1)

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.distributions.Bernoulli(c).log_prob(x[:, :1]).sum(1)


def test_values_that_are_equal_are_in_a_random_order() -> None:
    """Ranks of discrete values, and levels where the density has steps, would else pile up at one end."""
    c = torch.rand(4000, 1)
    result = calibrate(Coin(), Coin().sample(1, c)[0], c, draws=99)
    low, high = result.band(10, probability=0.9999)
    counts = result.histogram(10)
    assert ((counts >= low) & (counts <= high)).all(), counts
    levels, coverage = result.coverage([0.1, 0.5, 0.9])
    torch.testing.assert_close(coverage, levels, atol=0.03, rtol=0)


def test_levels_that_are_no_probabilities_are_refused() -> None:
    result = Calibration(torch.zeros(5, 1), torch.rand(5), draws=9)
    assert result.coverage(0.5)[1].shape == (1,)
    with pytest.raises(ig.GraphError, match="between 0 and 1"):
        result.coverage([95])
    with pytest.raises(ig.ArgumentError, match="levels must be a tensor, or numbers"):
        result.coverage("half")


@pytest.mark.parametrize(("deviation", "sign"), [(0.7, -1), (1.5, 1)])
def test_too_narrow_covers_too_little_and_too_wide_too_much(deviation: float, sign: int) -> None:
    result = calibrate(Normal(deviation), *pairs(1000), draws=199)
    levels, coverage = result.coverage(torch.tensor([0.5, 0.8]))
    assert ((coverage - levels) * sign > 0.05).all()
    edges = result.histogram(10)[:, [0, -1]]
    assert ((edges < 100).all() if sign > 0 else (edges > 100).all()).item()


def test_a_shift_shows_in_the_ranks_of_its_element() -> None:
    x, c = pairs(500)
    result = calibrate(Normal(1.0), x + torch.tensor([0.0, 1.0]), c, draws=99)
    means = result.ranks.to(torch.float).mean(0) / 99
    assert means[0].item() == pytest.approx(0.5, abs=0.06)
    assert means[1] > 0.7


def test_parts_and_the_whole_agree_and_a_flow_is_taken() -> None:
    flow = ig.recipes.spline_flow(2, 2, blocks=1, hidden=8)
    x, c = pairs(50)
    result = calibrate(flow, x, c, draws=99, at_once=1000)
    assert result.ranks.shape == (50, 2)
    assert result.levels.shape == (50,)


def test_a_summary_of_each_condition_is_computed_once_for_samples_and_once_for_densities() -> None:
    net, rows = nn.Linear(2, 3), []
    net.register_forward_pre_hook(lambda net, xs: rows.append(len(xs[0])))
    flow = ig.recipes.spline_flow(2, 2, summary=net, blocks=1, hidden=8)
    x, c = pairs(50)
    rows.clear()
    torch.manual_seed(1)
    result = calibrate(flow, x, c, draws=99)
    assert sum(rows) <= 150
    torch.manual_seed(1)
    other = calibrate(Wrapped(flow), x, c, draws=99)
    assert torch.equal(result.ranks, other.ranks)
    torch.testing.assert_close(result.levels, other.levels, rtol=0, atol=0.011)  # one of 99, by rounding


def test_a_flow_with_densities_of_its_own_gets_rows() -> None:
    class Cut(ig.Flow):
        def log_prob(self, x: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
            return super().log_prob(x, c) - (x[:, 0] > 2).float()

    flow = ig.recipes.spline_flow(2, 2, blocks=1, hidden=8)
    x, c = pairs(50)
    assert calibrate(Cut(flow.graph), x, c, draws=99).levels.shape == (50,)


class Wrapped:
    """A flow of which only ``sample`` and the densities of rows are known."""

    def __init__(self, flow: ig.Flow) -> None:
        self.sample, self.flow = flow.sample, flow

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        assert x.shape == (len(c), 2)
        return self.flow.log_prob(x, c)


def test_the_band_is_that_of_the_binomial_distribution() -> None:
    result = ig.inference.Calibration(torch.zeros(1000, 1), torch.zeros(1000), 99)
    low, high = result.band(bins=10, probability=0.95)
    draws = torch.distributions.Binomial(1000, torch.tensor(0.1)).sample((20_000,))
    inside = ((draws >= low) & (draws <= high)).to(torch.float).mean().item()
    assert 0.945 < inside < 0.965


@pytest.mark.parametrize("draws", [9, 20, 100])
def test_no_number_of_draws_makes_a_calibrated_density_look_otherwise(draws: int) -> None:
    ranks = torch.arange(draws + 1).repeat(200)  # each as often as it should be
    result = ig.inference.Calibration(ranks[:, None], ranks / draws, draws)
    bins = min(20, draws + 1)
    low, high = result.band(bins)
    counts = result.histogram(bins)
    assert low <= counts.min()
    assert counts.max() <= high
    levels, coverage = result.coverage()
    assert (coverage[0], coverage[-1]) == (0, 1)
    torch.testing.assert_close(coverage, levels, atol=0.5 / (draws + 1) + 1e-6, rtol=0)


@pytest.mark.parametrize(
    ("draws", "bins", "band"), [(99, 20, (13, 38)), (99, 1, (500, 500)), (99, 100, (0, 12)), (100, 7, (50, 95))]
)
def test_the_band_is_that_of_scipy(draws: int, bins: int, band: tuple[int, int]) -> None:
    # scipy.stats.binom.ppf(0.005, 500, smallest / (draws + 1)), and with 0.995 and the largest bin
    assert ig.inference.Calibration(torch.zeros(500, 1), torch.zeros(500), draws).band(bins) == band


def test_nan_is_not_the_most_probable_value() -> None:
    class Unchecked(Normal):
        def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
            return -(((x - c) / self.deviation) ** 2).sum(1)

    truth, c = pairs(5)
    calibrate(Unchecked(1.0), truth, c, draws=9)
    for deviation, x in ((torch.nan, truth), (1.0, torch.where(truth == truth[3], torch.nan, truth))):
        with pytest.raises(ig.NumericsError, match="log-densities that are NaN"):
            calibrate(Unchecked(deviation), x, c, draws=9)


def test_bad_input() -> None:
    x, c = pairs(5)
    with pytest.raises(ig.ShapeError, match="a condition for each row"):
        calibrate(Normal(1.0), x, c[:4])
    with pytest.raises(ig.GraphError, match="draws must be at least 1"):
        calibrate(Normal(1.0), x, c, draws=0)
    with pytest.raises(ig.GraphError, match=r"probability must be in \(0, 1\)"):
        calibrate(Normal(1.0), x, c, draws=9).band(probability=1.0, bins=10)
    with pytest.raises(ig.GraphError, match="bins must be at least 1"):
        calibrate(Normal(1.0), x, c, draws=9).band(0)
    with pytest.raises(ig.ShapeError, match="x has the elements of a sample"):
        calibrate(Normal(1.0), x[:, :1], c, draws=9)


def test_wrong_types_are_named() -> None:
    flow = ig.recipes.spline_flow(2, 3, blocks=1, hidden=8)
    x, c = torch.randn(20, 2), torch.randn(20, 3)
    calls: list[tuple[Any, Any, Any, str]] = [
        (flow, x, (c,), "c: tuple"),
        (flow, x, (), "c: tuple"),
        (flow, x.numpy(), c, "x: ndarray"),
        (flow.graph, x, c, "flow: Graph"),
    ]
    for model, data, conditions, words in calls:
        with pytest.raises(ig.ArgumentError, match=words):
            calibrate(model, data, conditions, draws=9)


def test_levels_of_coverage_may_be_a_list() -> None:
    result = Calibration(torch.zeros(4, 1, dtype=torch.long), torch.tensor([0.0, 0.2, 0.6, 1.0]), draws=9)
    levels, covered = result.coverage([0.5, 0.9])  # type: ignore[arg-type]
    assert torch.allclose(levels, torch.tensor([0.5, 0.9]))
    assert covered.tolist() == [0.5, 0.75]
