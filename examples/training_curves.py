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

COLOURS = ("#1a1a1a", "#c2410c", "#1d4ed8", "#15803d", "#a16207", "#7e22ce", "#0e7490", "#9f1239")
TITLES = {"mnist": "MNIST", "bedrooms": "bedrooms"}


def draw(found: Mapping[str, Any], rates: Sequence[float], variants: Sequence[str], path: Path) -> Path:
    """Draw a row for each task and a column for each learning rate.

    A line is the mean over the seeds, its band reaches from the lowest to the highest. A cross marks the last loss
    before a run diverged; it is at the top edge if there was none.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9 * len(found) + 0.6), layout="constrained")
        table = figure.subplots(len(found), len(rates), squeeze=False)
        for row, (task, content) in zip(table, found.items(), strict=True):
            for axes, rate in zip(row, rates, strict=True):
                _panel(axes, [run for run in content["runs"] if run["rate"] == rate], variants)
                axes.set_title(f"{TITLES[task]}, learning rate {rate:g}", fontsize=8)
            row[0].set_ylabel("training loss, nats per dimension")
        for axes in table[-1]:
            axes.set_xlabel("step")
        handles = {}
        for axes in table.flat:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(
            [handles[name] for name in variants if name in handles], [name for name in variants if name in handles],
            loc="outside lower center", ncols=4, frameon=False, fontsize=7,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, facecolor="white")
    return path


def _panel(axes: Axes, runs: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> None:
    levels = []
    for colour, name in zip(COLOURS, variants, strict=True):
        whole = [run for run in runs if run["variant"] == name and not run["diverged"]]
        if whole:
            losses = np.array([run["loss"] for run in whole])
            axes.plot(whole[0]["step"], losses.mean(0), color=colour, linewidth=0.9, label=name)
            axes.fill_between(whole[0]["step"], losses.min(0), losses.max(0), color=colour, alpha=0.15, linewidth=0)
            levels.extend(losses[:, len(losses[0]) // 10 :].flatten())
        for run in runs:
            if run["variant"] == name and run["diverged"] and run["step"]:
                axes.plot(run["step"], run["loss"], color=colour, linewidth=0.9, dashes=(3, 2), label=name)
                axes.plot(run["step"][-1], run["loss"][-1], "x", color=colour, markersize=5)
            elif run["variant"] == name and run["diverged"]:  # before the first point of the curve: a cross at the top
                top = axes.get_xaxis_transform()
                axes.plot(run["steps"], 0.97, "x", color=colour, markersize=6, transform=top, label=name)
    if levels:
        low, high = np.quantile(levels, (0.0, 0.98))
        margin = 0.06 * (high - low) + 1e-3
        axes.set_ylim(low - margin, high + margin)  # the first steps, whose losses are much larger, are cut off
    axes.spines[["top", "right"]].set_visible(False)
