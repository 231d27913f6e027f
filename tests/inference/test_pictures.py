"""The corner plot draws any number of elements, and says what does not fit."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import invgraph as ig
from invgraph.inference import Calibration, corner, draw_calibration


@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_panel_for_each_element_and_pair(size: int, tmp_path: Path) -> None:
    figure = corner(torch.randn(500, size), truth=torch.zeros(size), bins=20)
    assert len(figure.axes) == size * (size + 1) // 2
    figure.savefig(tmp_path / "corner.png")
    assert (tmp_path / "corner.png").stat().st_size > 1000


@pytest.mark.parametrize(("limit", "held"), [(4.0, [0.95, 0.68]), (1.8, [0.68]), (1.0, [])])
def test_contours_hold_what_they_say(limit: float, held: list[float]) -> None:
    """Of all samples, not only of those within the limits; what these can't hold is not drawn."""
    axes = corner(torch.randn(50_000, 2), limits=[(-limit, limit)] * 2).axes[1]
    contours = [level for item in axes.collections for level in item.levels]
    counts = axes.images[0].get_array()
    assert [float(counts[counts >= level].sum() / 50_000) for level in contours] == pytest.approx(held, abs=0.02)


def test_points_that_all_lie_in_one_place() -> None:
    corner(torch.zeros(10, 2), limits=[(-1, 1), (-1, 1)])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((torch.zeros(5),), r"expected \(N, D\)"),
        ((torch.zeros(5, 2), ["a"]), "1 names"),
        ((torch.zeros(5, 1), None, torch.tensor(0.0)), r"truth of shape \(\)"),
        ((torch.zeros(5, 2), None, None, [(0, 1, 2)] * 2), r"limits of shape \(2, 3\)"),
        ((torch.zeros(5, 2), None, torch.zeros(3)), r"truth of shape \(3,\)"),
    ],
)
def test_bad_input(args: Any, words: str) -> None:
    with pytest.raises(ig.ShapeError, match=words):
        corner(*args)


def test_limits_may_be_tensors_and_are_found_in_any_number_of_samples() -> None:
    points = torch.linspace(0, 1, 1001)[:, None].expand(-1, 2)
    limits = [(torch.zeros(()), torch.tensor(2.0))] * 2
    assert [axes.get_xlim() for axes in corner(points, limits=limits).axes[:2]] == [(0, 2)] * 2
    assert corner(points).axes[0].get_xlim() == pytest.approx((0.001, 0.999))
    assert len(corner(torch.rand(2**24 + 1, 1, dtype=torch.float64)).axes) == 1  # more than a quantile takes


def test_the_truth_is_in_the_picture_and_one_that_is_not_known_is_not_drawn() -> None:
    figure = corner(torch.randn(500, 2), truth=torch.tensor([10.0, torch.nan]))
    assert figure.axes[0].get_xlim()[1] == 10
    assert figure.axes[2].get_xlim()[1] < 5
    with pytest.raises(ig.NumericsError, match="NaN, not infinite"):
        corner(torch.randn(500, 2), truth=torch.tensor([math.inf, 0.0]))
    with pytest.raises(ig.ArgumentError, match=r"limits: list\n.*must be a tensor, or numbers"):
        corner(torch.randn(500, 2), limits=[None, (0, 1)])  # type: ignore[list-item]


def test_nan_among_the_samples() -> None:
    samples = torch.randn(10, 2)
    samples[3, 1], samples[4, 0] = torch.nan, torch.inf
    with pytest.raises(ig.NumericsError, match="2 of 10 samples with NaN or infinity"):
        corner(samples)


def test_ranks_with_their_band_and_the_coverage(tmp_path: Path) -> None:
    result = Calibration(torch.randint(200, (400, 3)), torch.rand(400), draws=199)
    figure = draw_calibration(result, bins=10)
    assert len(figure.axes) == 4
    heights = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert heights == result.histogram(10)[0].tolist()
    low, high = result.band(10)
    band = figure.axes[0].patches[-1]
    assert (band.get_y(), band.get_y() + band.get_height()) == (low, high)
    figure.savefig(tmp_path / "ranks.png")
    with pytest.raises(ig.ShapeError, match="2 names"):
        draw_calibration(result, ["a", "b"])


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ig.DependencyError, match="pip install matplotlib"):
        corner(torch.zeros(5, 2))


@pytest.mark.parametrize("limits", [[(1, -1)] * 2, [(float("nan"), 1)] * 2, [(0, 0)] * 2])
def test_limits_that_are_no_interval_are_refused(limits: Any) -> None:
    with pytest.raises(ig.GraphError, match="expected the lower end first"):
        corner(torch.randn(50, 2), limits=limits)


def test_samples_that_are_no_tensor_are_refused() -> None:
    samples: Any = torch.randn(50, 2).numpy()
    with pytest.raises(ig.ArgumentError, match=r"samples: ndarray\n.*torch.as_tensor"):
        corner(samples)
