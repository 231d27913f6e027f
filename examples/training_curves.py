"""Figure of ``examples/ablations.py``: training curves like those in Fig. 10 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from digits.pictures import STYLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

COLORS = ("#1a1a1a", "#c2410c", "#1d4ed8", "#15803d", "#a16207", "#7e22ce", "#0e7490", "#9f1239")
TITLES = {"mnist": "MNIST", "bedrooms": "bedrooms"}
OTHER_DATA = "no noise"
"""Variant whose losses are of other data, so that the scale is not chosen for it."""

SMOOTH = 5
"""Number of records that a point of a curve averages; the variants share their batches, and the noise of these."""

DASHES = (3, 2)


def draw(found: Mapping[str, Any], rates: Sequence[float], variants: Sequence[str], path: Path) -> Path:
    """Draw a row for each task and a column for each learning rate.

    A line is the mean over the seeds, its band reaches from the lowest to the highest. A run that diverged is dashed
    and ends in a cross, which is at the top edge if the last loss before was above it, or if there was none.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9 * len(found) + 0.6), layout="constrained")
        table = figure.subplots(len(found), len(rates), squeeze=False)
        shown = set()
        for row, (task, content) in zip(table, found.items(), strict=True):
            for axes, rate in zip(row, rates, strict=True):
                runs = [run for run in content["runs"] if run["rate"] == rate]
                shown |= {run["variant"] for run in runs}
                _panel(axes, runs, variants)
                axes.set_title(f"{TITLES[task]}, learning rate {rate:g}", fontsize=8)
            row[0].set_ylabel("training loss, nats per dimension")
        for axes in table[-1]:
            axes.set_xlabel("step")
        colors = [(name, color) for name, color in zip(variants, COLORS, strict=True) if name in shown]
        handles = [Line2D([], [], color=color, linewidth=1.2, label=name) for name, color in colors]
        handles.append(Line2D([], [], color="#6b6b6b", linewidth=0.9, dashes=DASHES, marker="x", label="diverged"))
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, facecolor="white")
    return path


def _panel(axes: Axes, runs: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> None:
    """Draw the curves of one task at one learning rate."""
    levels: list[float] = []
    finished: dict[str, NDArray[np.float64]] = {}
    for color, name in zip(COLORS, variants, strict=True):
        whole = [run for run in runs if run["variant"] == name and not run["diverged"]]
        if whole:
            losses = _smooth(np.array([run["loss"] for run in whole]))
            finished[name] = losses
            axes.plot(whole[0]["step"], losses.mean(0), color=color, linewidth=1.0)
            axes.fill_between(whole[0]["step"], losses.min(0), losses.max(0), color=color, alpha=0.15, linewidth=0)
            levels.extend(() if name == OTHER_DATA else losses[:, len(losses[0]) // 10 :].flatten())
    if not levels:
        levels = [value for losses in finished.values() for value in losses.flatten()] or [0.0, 1.0]
    low, high = np.quantile(levels, (0.0, 0.99))
    margin = 0.06 * (high - low) + 1e-3
    axes.set_ylim(low - margin, high + margin)  # the first steps, whose losses are much larger, are cut off
    for color, name in zip(COLORS, variants, strict=True):
        for run in runs:
            if run["variant"] == name and run["diverged"]:
                axes.plot(run["step"], run["loss"], color=color, linewidth=0.9, dashes=DASHES)
                # the last loss, or the top edge
                last = run["loss"][-1] if run["loss"] and run["loss"][-1] < high else high
                axes.plot(run["steps"], last, "x", color=color, markersize=5.5)
    axes.spines[["top", "right"]].set_visible(False)
    end = finished[OTHER_DATA].mean(0)[-1] if OTHER_DATA in finished else high
    if end < low - margin:
        text = f"{OTHER_DATA}: other data, down to {end:.2f}"
        axes.set_ylim(bottom=low - 0.12 * (high - low))  # room for it
        axes.text(0.98, 0.02, text, transform=axes.transAxes, ha="right", fontsize=7,
                  color=COLORS[list(variants).index(OTHER_DATA)])  # fmt: skip


def _smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each record with its neighbors, with fewer of them at both ends."""
    reach = SMOOTH // 2
    places = [slice(max(0, k - reach), k + reach + 1) for k in range(losses.shape[1])]
    return np.stack([losses[:, place].mean(1) for place in places], axis=1)
