"""Bar charts of the page on performance, drawn from ``performance_results.txt`` when the pages are built."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

Row = tuple[str, float]
_SHOWN = ("invgraph compiled", "invgraph", "invgraph bound", "FrEIA", "normflows (no condition)", "nflows", "zuko")
_LINE = re.compile(r"(.+?) +(\d+) (.+?) {2,}([\d.]+) +[\d.]+ +[\d.]+ +")
_COLORS = {"light": ("#1c2430", "#6b46c1", "#a4aebb"), "dark": ("#e8edf3", "#a68ff0", "#5d6977")}


def read(path: Path) -> dict[tuple[str, int], list[Row]]:
    """Return the smallest time in milliseconds of each contestant, by work and size."""
    found: dict[tuple[str, int], list[Row]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        match = _LINE.match(line)
        if match is not None:
            found.setdefault((match[1], int(match[2])), []).append((match[3], float(match[4])))
    return found


def chart(panels: list[tuple[str, list[Row]]], theme: str) -> Figure:
    """Draw panels of horizontal bars; this library's bars are colored."""
    text, ours, others = _COLORS[theme]
    tallest = max(len(rows) for _, rows in panels)
    figure = Figure(figsize=(7.2, 0.55 + 0.27 * tallest), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        names, times = zip(*rows[::-1], strict=True)
        colors = [ours if name.startswith("invgraph") else others for name in names]
        bars = axis.barh(names, times, color=colors, height=0.7)
        axis.bar_label(bars, labels=[f"{value:.0f} ms" for value in times], padding=3, color=text, fontsize=8)
        axis.set_title(title, fontsize=9, color=text, loc="left")
        axis.set(xticks=[], xlim=(0, 1.22 * max(times)))
        axis.patch.set_alpha(0)
        axis.spines[:].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=8, labelcolor=text)
    return figure


def write(results: Path, folder: Path) -> None:
    """Draw ``train-light.svg``, ``sample-light.svg`` and the same in dark, unless they are newer than the results."""
    times = read(results)

    def rows(work: str, size: int) -> list[Row]:
        by_name = dict(times[work, size])
        return [(name, by_name[name]) for name in _SHOWN if name in by_name]

    charts = {
        "train": [(f"MNIST, training step, batch {size}", rows("train step", size)) for size in (256, 16)],
        "sample": [(f"{size} colorizations of one image", rows("samples of one image", size)) for size in (8, 64)],
    }
    folder.mkdir(exist_ok=True)
    for name, panels in charts.items():
        for theme in _COLORS:
            path = folder / f"{name}-{theme}.svg"
            if not path.exists() or path.stat().st_mtime < max(results.stat().st_mtime, Path(__file__).stat().st_mtime):
                chart(panels, theme).savefig(path)
