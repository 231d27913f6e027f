"""Corner plot: histograms of each element, and contours of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.arguments import require_count
from invgraph.errors import DependencyError, ShapeError


def corner(
    samples: Tensor,
    names: Sequence[str] | None = None,
    truth: Tensor | None = None,
    limits: Sequence[tuple[float, float]] | None = None,
    bins: int = 50,
) -> Any:
    """Draw the marginal distributions of samples: one element on the diagonal, pairs below it.

    A pair is shown as a two-dimensional histogram, with contours of the smallest regions that hold 68 and 95 % of the
    samples. Needs matplotlib (``pip install "invgraph[examples]"``).

    Arguments:
        samples: Samples, ``(N, D)``.
        names: Name of each element. Default: ``x0``, ``x1``, ...
        truth: True values ``(D,)``, drawn as lines. Default: none.
        limits: Lower and upper end of each axis. Default: the central 99.8 % of the samples.
        bins: Number of bins per axis. Default: 50.

    Returns:
        The ``matplotlib.figure.Figure``.

    Raises:
        DependencyError: If matplotlib is not installed.
        ShapeError: If the samples are no matrix, or names, truth or limits do not match it.

    Example:
        >>> import torch, invgraph as ig
        >>> figure = ig.inference.corner(torch.randn(1000, 3), names=["a", "b", "c"])
        >>> len(figure.axes)
        6
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError("corner", "no package matplotlib", 'pip install "invgraph[examples]"') from error
    bins = require_count("corner", "bins", bins, least=2)
    if samples.ndim != 2 or len(samples) < 2:
        raise ShapeError("corner", f"samples of shape {tuple(samples.shape)}", "expected (N, D), N at least 2")
    points = samples.detach().to("cpu", torch.float64)
    size = points.shape[1]
    names = [f"x{k}" for k in range(size)] if names is None else names
    for name, values in (("names", names), ("truth", truth), ("limits", limits)):
        if values is not None and len(values) != size:
            raise ShapeError("corner", f"{len(values)} {name}", f"expected {size}, one per element")
    if limits is None:
        ends = points.quantile(torch.tensor([0.001, 0.999], dtype=torch.float64), dim=0)
        limits = [(float(low), float(high)) for low, high in ends.T]
    figure = Figure(figsize=(1.8 * size + 0.6, 1.8 * size + 0.6), layout="constrained")
    for row in range(size):
        for column in range(row + 1):
            axes = figure.add_subplot(size, size, row * size + column + 1)
            if row == column:
                axes.hist(points[:, row].numpy(), bins=bins, range=limits[row], histtype="step", color="C0")
                axes.set_yticks([])
            else:
                _draw_pair(axes, points[:, column], points[:, row], limits[column], limits[row], bins)
                axes.set_ylim(limits[row])
            axes.set_xlim(limits[column])
            _mark(axes, truth, row, column)
            axes.tick_params(labelsize=7)
            if row == size - 1:
                axes.set_xlabel(names[column])
            else:
                axes.set_xticklabels([])
            if column == 0 and row > 0:
                axes.set_ylabel(names[row])
            elif column > 0:
                axes.set_yticklabels([])
    return figure


def _draw_pair(
    axes: Any, a: Tensor, b: Tensor, a_limits: tuple[float, float], b_limits: tuple[float, float], bins: int
) -> None:
    pairs = torch.stack((a, b), 1)
    counts, _ = torch.histogramdd(pairs, [bins, bins], range=[*a_limits, *b_limits])
    extent = (*a_limits, *b_limits)
    axes.imshow(counts.T.numpy(), origin="lower", extent=extent, aspect="auto", cmap="Blues")
    falling = counts.flatten().sort(descending=True).values
    mass = falling.cumsum(0) / falling.sum().clamp(min=1)
    edges = sorted({float(falling[(mass < share).sum().clamp(max=len(mass) - 1)]) for share in (0.95, 0.68)})
    if falling[0] > edges[0] > 0:
        axes.contour(counts.T.numpy(), levels=edges, origin="lower", extent=extent, colors="C0", linewidths=0.8)


def _mark(axes: Any, truth: Tensor | None, row: int, column: int) -> None:
    if truth is None:
        return
    axes.axvline(float(truth[column]), color="C3", linewidth=1)
    if row != column:
        axes.axhline(float(truth[row]), color="C3", linewidth=1)
