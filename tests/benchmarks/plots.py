"""Plots of cost against depth, batch, channels and nodes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

AXES = (
    ("depth", "depth", "depth", "minimum", "train step, s"),
    ("memory", "depth", "depth", "saved_bytes", "saved activations, bytes"),
    ("batch", "train step", "batch", "minimum", "train step, s"),
    ("channels", "channels", "channels", "minimum", "train step, s"),
    ("build", "build", "nodes", "minimum", "build, s"),
)


def plot(results: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """One picture for each axis of which there are at least two points."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    everything = [row for name, section in results.items() if name != "bedrooms" for row in section]
    for name, work, x, y, label in AXES:
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in everything:
            if row["work"] == work and x in row and y in row:
                lines[row["contestant"]].append((row[x], row[y]))
        if not any(len(points) > 1 for points in lines.values()):
            continue
        figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
        for contestant, points in lines.items():
            axes.loglog(*zip(*sorted(points), strict=True), marker="o", label=contestant)
        axes.set(xlabel=x, ylabel=label)
        axes.legend(fontsize="small")
        figure.savefig(folder / f"{name}.png", dpi=120)
        plt.close(figure)
