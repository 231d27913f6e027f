"""Figures of the paper for digits: samples (Fig. 6), style transfer (Fig. 7), latent axes (Fig. 4), training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from trainer import History

import invgraph as ig
from digits import data
from digits.latents import components_of
from digits.measure import denoise, noisy

INK, QUIET, ACCENT = "#1a1a1a", "#8a8a8a", "#c2410c"
STYLE: dict[Any, Any] = {
    "font.family": "serif",
    "font.serif": ["DejaVu Serif"],
    "font.size": 8,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "axes.linewidth": 0.6,
}


def show(axes: Axes, tiles: Tensor, gap: int = 3, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> None:
    """Show pictures ``(R, C, 28, 28)``, with pixels in 0..1 as ink, in a table with column and row labels."""
    height, width = tiles.shape[2] + gap, tiles.shape[3] + gap
    page = tiles.new_zeros(tiles.shape[0] * height - gap, tiles.shape[1] * width - gap)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            page[i * height :, j * width :][: tile.shape[0], : tile.shape[1]] = tile
    axes.imshow(page.cpu().numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks([j * width + tiles.shape[3] / 2 for j in range(len(columns))], columns)
    axes.set_yticks([i * height + tiles.shape[2] / 2 for i in range(len(rows))], rows)
    axes.tick_params(length=0, labelsize=8, labelcolor=QUIET, top=False, labeltop=True, bottom=False, labelbottom=False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The layout engine ignores the aspect ratio of the tables, so crop the figure to its content.
    figure.savefig(path, dpi=250, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    return path


def _decode(flow: ig.Flow, z: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Decode latents ``(R, 784)`` for every class; return pixels ``(R, 10, 28, 28)``, as generated and denoised."""
    rows = len(z)
    labels = torch.arange(10, device=z.device).repeat(rows)
    with torch.no_grad():
        x, _ = flow.graph.inverse(z.repeat_interleave(10, 0), data.condition(labels))
    tidy = denoise(flow, x, labels, noise)
    plain, denoised = (data.to_pixels(pictures).reshape(rows, 10, 28, 28) for pictures in (x, tidy))
    return plain, denoised


def samples(flow: ig.Flow, noise: float, path: Path, *, temperature: float, rows: int = 10, seed: int = 0) -> Path:
    """Draw rows that decode one latent code each as all ten digits, which share a style."""
    device = next(flow.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    z = torch.randn(rows, 784, generator=generator, device=device) * temperature
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.335 * rows + 0.55), layout="constrained")
        digits = [str(digit) for digit in range(10)]
        titles = ("as generated", "training noise removed")
        for axes, tiles, title in zip(figure.subplots(1, 2), _decode(flow, z, noise), titles, strict=True):
            show(axes, tiles, columns=digits)
            axes.set_title(f"{title}, temperature {temperature:.1f}", fontsize=8)
        return save(figure, path)


def style(flow: ig.Flow, noise: float, path: Path, *, rows: int = 10, seed: int = 0) -> Path:
    """Draw rows that decode the latent code of a test digit each as all ten digits."""
    device = next(flow.parameters()).device
    test = data.load("test")
    chosen = torch.stack([torch.nonzero(test.labels == row % 10)[3 + row // 10, 0] for row in range(rows)])
    x = noisy(test.pixels[chosen], noise, torch.Generator().manual_seed(seed)).to(device)
    with torch.no_grad():
        z, _ = flow.graph(x, data.condition(test.labels[chosen]).to(device))
    _, tiles = _decode(flow, z, noise)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 0.345 * rows + 0.3), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 10.9))
        show(left, test.pixels[chosen].unsqueeze(1).float() / 255, columns=["real"])
        left.tick_params(labelcolor=ACCENT)
        show(right, tiles, columns=[str(digit) for digit in range(10)])
        return save(figure, path)


def axes(flow: ig.Flow, noise: float, path: Path, *, count: int = 10_000, reach: float = 2.0) -> Path:
    """Draw digits along the first four principal components of the latents of the noise-free test set."""
    device = next(flow.parameters()).device
    mean, components, names = components_of(flow, count)
    steps = torch.linspace(-reach, reach, 7, dtype=torch.float64)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        for number, (place, component) in enumerate(zip(figure.subplots(1, 4), components, strict=True)):
            z = (mean + steps[:, None] * component).float().to(device)
            _, tiles = _decode(flow, z, noise)
            columns = [f"{step:+.0f}" if step in (-reach, reach) else "" for step in steps.tolist()]
            show(place, tiles.transpose(0, 1), columns=columns)
            place.set_title(f"component {number + 1}\n({names[number]})", fontsize=7)
        return save(figure, path)


def training(history: History, figures: dict[str, Any] | None, path: Path) -> Path:
    """Plot loss and learning rate over the steps, and the test loss if figures are given."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.plot(history.step, history.loss, color=INK, linewidth=0.9, label="training")
        if figures is not None:
            level = figures["loss_nats_per_dim"]
            upper.axhline(level, color=ACCENT, linewidth=0.9, dashes=(4, 2), label=f"test, {level:+.3f}")
        low, high = min(history.loss), sorted(history.loss)[int(0.97 * (len(history.loss) - 1))]
        margin = 0.05 * (high - low) + 1e-3
        upper.set_ylim(low - margin, high + margin)  # hide the first few records, which are much larger
        upper.set_ylabel("nats per dimension")
        upper.legend(frameon=False, loc="upper right")
        lower.plot(history.step, [rate * 1e3 for rate in history.rate], color=QUIET, linewidth=0.9)
        lower.set_ylabel("rate · 10³")
        lower.set_xlabel("step")
        for place in (upper, lower):
            place.spines[["top", "right"]].set_visible(False)
        return save(figure, path)


def draw_all(
    flow: ig.Flow, noise: float, history: History, figures: dict[str, Any] | None, folder: Path, *, rows: int = 10
) -> list[Path]:
    """Write all pictures to a folder."""
    written = [
        samples(flow, noise, folder / f"samples_{temperature:.1f}.png", temperature=temperature, rows=rows)
        for temperature in (1.0, 0.7)
    ]
    written.append(style(flow, noise, folder / "style_transfer.png", rows=rows))
    written.append(axes(flow, noise, folder / "latent_axes.png"))
    if history.step:
        written.append(training(history, figures, folder / "training.png"))
    return written
