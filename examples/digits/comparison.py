"""Figures of ``examples/mnist_multiscale.py``: bits per dimension over processor time, and digits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import invgraph as ig
from digits import data
from digits.pictures import ACCENT, INK, QUIET, STYLE, save, show

LABELS = {
    "multiscale": ("multi-scale model", ACCENT),
    "paper": ("the paper's architecture, 8 × 256", INK),
    "paper_published": ("the paper's architecture, 24 × 512", QUIET),
}


def curves(results: Mapping[str, Any], path: Path) -> Path:
    """Plot bits per dimension of test digits over the processor time of training."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        axes = figure.subplots()
        highest = 0.0
        for name, found in results.items():
            label, color = LABELS[name]
            curve = found["curve"]
            axes.plot([s / 60 for s in curve["seconds"]], curve["bits"], color=color, linewidth=1.2, label=label)
            highest = max(highest, curve["bits"][-1])
            end = (curve["seconds"][-1] / 60, curve["bits"][-1])
            axes.annotate(f"{end[1]:.2f}", end, (0, 4), textcoords="offset points", ha="right", fontsize=7, color=color)
        axes.set_ylim(0.9, highest + 0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("processor time of training, minutes of one core")
        axes.set_ylabel("bits per dimension, 1,000 test digits")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper right")
        return save(figure, path)


def samples(flows: Mapping[str, ig.Flow], path: Path, *, rows: int = 8, seed: int = 0) -> Path:
    """Draw digits of each model at temperatures 1 and 0.7, one latent code a row, the ten classes across."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, (0.335 * rows + 0.35) * len(flows)), layout="constrained")
        table = figure.subplots(len(flows), 2, squeeze=False)
        for line, (name, flow) in zip(table, flows.items(), strict=True):
            for axes, temperature in zip(line, (1.0, 0.7), strict=True):
                digit = data.condition(torch.arange(10).repeat(rows))
                generator = torch.Generator().manual_seed(seed)
                z = tuple(
                    temperature * torch.randn(rows, *shape, generator=generator).repeat_interleave(10, 0)
                    for shape in flow.graph.out_shapes
                )
                with torch.no_grad():
                    x, _ = flow.graph.inverse(z if len(z) > 1 else z[0], digit)
                show(axes, x.view(rows, 10, 28, 28) / 255, columns=[str(k) for k in range(10)])
                axes.set_title(f"{LABELS[name][0]}, temperature {temperature:g}", fontsize=8)
        return save(figure, path)
