"""Pictures of samples and of their calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.arguments import as_numbers, require_count
from invgraph.draw.fonts import set_fonts
from invgraph.errors import ArgumentError, DependencyError, GraphError, NumericsError, ShapeError
from invgraph.inference.calibration import Calibration


def corner(
    samples: Tensor,
    names: Sequence[str] | None = None,
    truth: Tensor | None = None,
    limits: Sequence[tuple[float, float]] | None = None,
    bins: int = 50,
) -> Any:
    """Draw the marginal distributions of samples: one element on the diagonal, pairs below it.

    A pair is shown as a two-dimensional histogram, with contours of the smallest regions that contain 68 and 95 % of
    the samples; a contour is left out if so many samples do not lie within the limits. Needs matplotlib
    (``pip install matplotlib``).

    Arguments:
        samples: Samples, ``(N, D)``.
        names: Name of each element. Default: ``x0``, ``x1``, ...
        truth: True values ``(D,)``, drawn as lines; NaN for one that is not known. Default: none.
        limits: Lower and upper end of each axis. Default: the central 99.8 % of the samples, and the true values.
        bins: Number of bins per axis. Default: 50.

    Returns:
        The ``matplotlib.figure.Figure``.

    Raises:
        DependencyError: If matplotlib is not installed.
        ArgumentError: If the samples are not a tensor, or true values or limits are not numbers.
        ShapeError: If the samples are not a matrix, or names, truth or limits do not match it.
        GraphError: If a limit is not an interval.
        NumericsError: If a sample is NaN or infinite, or a true value is infinite.

    Example:
        >>> import torch, invgraph as ig
        >>> figure = ig.inference.corner(torch.randn(1000, 3), names=["a", "b", "c"])
        >>> len(figure.axes)
        6
    """
    bins = require_count("corner", "bins", bins, least=2)
    if not isinstance(samples, Tensor):
        raise ArgumentError("corner", f"samples: {type(samples).__name__}", "samples must be a tensor: torch.as_tensor")
    if samples.ndim != 2 or len(samples) < 2 or not samples.shape[1]:
        raise ShapeError(
            "corner", f"samples of shape {tuple(samples.shape)}", "expected (N, D), N at least 2, D at least 1"
        )
    points = samples.detach().to("cpu", torch.float64)
    size = points.shape[1]
    if not bool(points.isfinite().all()):
        given = f"{int((~points.isfinite()).any(1).sum())} of {len(points)} samples with NaN or infinity"
        raise NumericsError("corner", given, "leave them out: samples[samples.isfinite().all(1)]")
    names = _names(names, size, "corner")
    known = torch.full((size,), torch.nan) if truth is None else _numbers("truth", truth, (size,))
    if bool(known.isinf().any()):
        raise NumericsError("corner", f"truth={known.tolist()}", "a true value that is not known is NaN, not infinite")
    if limits is None:
        places = [1 + round(share * (len(points) - 1)) for share in (0.001, 0.999)]
        low, high = (points.kthvalue(place, dim=0).values for place in places)
        ends = list(zip(low.fmin(known).tolist(), high.fmax(known).tolist(), strict=True))
    else:
        ends = [_limits(pair) for pair in _numbers("limits", limits, (size, 2)).tolist()]
    figure = _figure("corner", 1.8 * size + 0.6, 1.8 * size + 0.6)
    for row in range(size):
        for column in range(row + 1):
            axes = figure.add_subplot(size, size, row * size + column + 1)
            if row == column:
                axes.hist(points[:, row].numpy(), bins=bins, range=ends[row], histtype="step", color="C0")
                axes.set_yticks([])
            else:
                _draw_pair(axes, points[:, column], points[:, row], ends[column], ends[row], bins)
                axes.set_ylim(ends[row])
            axes.set_xlim(ends[column])
            _mark(axes, known.tolist(), row, column)
            axes.tick_params(labelsize=7)
            if row == size - 1:
                axes.set_xlabel(names[column])
            else:
                axes.set_xticklabels([])
            if column == 0 and row > 0:
                axes.set_ylabel(names[row])
            elif column > 0:
                axes.set_yticklabels([])
    set_fonts([axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)], "corner", stacklevel=2)
    return figure


def _numbers(name: str, values: object, shape: tuple[int, ...]) -> Tensor:
    numbers = as_numbers("corner", name, values)
    if numbers.shape != shape:
        raise ShapeError("corner", f"{name} of shape {tuple(numbers.shape)}", f"expected {shape}, one row per element")
    return numbers


def _limits(pair: list[float]) -> tuple[float, float]:
    low, high = pair
    if not -math.inf < low < high < math.inf:
        raise GraphError("corner", f"limits=({low}, {high}) of an element", "expected the lower end first, both finite")
    return low, high


def _draw_pair(
    axes: Any, a: Tensor, b: Tensor, a_limits: tuple[float, float], b_limits: tuple[float, float], bins: int
) -> None:
    pairs = torch.stack((a, b), 1)
    counts, _ = torch.histogramdd(pairs, [bins, bins], range=[*a_limits, *b_limits])
    extent = (*a_limits, *b_limits)
    axes.imshow(counts.T.numpy(), origin="lower", extent=extent, aspect="auto", cmap="Blues")
    falling = counts.flatten().sort(descending=True).values
    mass = falling.cumsum(0) / len(a)  # samples beyond the limits count, too: what they hold can't be drawn
    shares = [share for share in (0.95, 0.68) if mass[-1] >= share]
    edges = sorted({float(falling[(mass < share).sum()]) for share in shares})
    if edges and falling[0] > edges[0] > 0:
        axes.contour(counts.T.numpy(), levels=edges, origin="lower", extent=extent, colors="C0", linewidths=0.8)


def _mark(axes: Any, truth: list[float], row: int, column: int) -> None:
    axes.axvline(truth[column], color="C3", linewidth=1)
    if row != column:
        axes.axhline(truth[row], color="C3", linewidth=1)


def draw_calibration(
    result: Calibration, names: Sequence[str] | None = None, bins: int = 20, probability: float = 0.99
) -> Any:
    """Draw a histogram of the ranks of each element with the band of a calibrated density, and the expected coverage.

    Bars above the band at both ends mean that the density is too narrow, in the middle that it is too wide, at one end
    that it is biased. The line of the coverage lies below the diagonal for a density that is too narrow. Needs
    matplotlib (``pip install matplotlib``).

    Arguments:
        result: What :func:`calibrate` returned.
        names: Name of each element. Default: ``x0``, ``x1``, ...
        bins: Number of bars. Default: 20.
        probability: Probability of the band, for one bar. Default: 0.99.

    Returns:
        The ``matplotlib.figure.Figure``.

    Raises:
        DependencyError: If matplotlib is not installed.
        ShapeError: If the number of names is not that of the elements.

    Example:
        >>> import torch, invgraph as ig
        >>> result = ig.inference.Calibration(torch.randint(100, (500, 2)), torch.rand(500), draws=99)
        >>> figure = ig.inference.draw_calibration(result, ["a", "b"])
        >>> [axes.get_title() for axes in figure.axes]
        ['a', 'b', 'coverage']
    """
    counts = result.histogram(bins)
    names = _names(names, len(counts), "draw_calibration")
    figure = _figure("draw_calibration", 2.4 * (len(counts) + 1), 2.6)
    for index, (name, heights) in enumerate(zip(names, counts, strict=True)):
        axes = figure.add_subplot(1, len(counts) + 1, index + 1)
        axes.bar((torch.arange(bins) + 0.5).div(bins).numpy(), heights.cpu().numpy(), width=1 / bins, color="C0")
        axes.axhspan(*result.band(bins, probability), color="C1", alpha=0.3)
        axes.set(title=name, xlabel="rank of the true value", xlim=(0, 1), yticks=[])
    axes = figure.add_subplot(1, len(counts) + 1, len(counts) + 1)
    levels, covered = (values.cpu().numpy() for values in result.coverage())
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.plot(levels, covered, color="C0")
    axes.set(title="coverage", xlabel="probability of the region", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    set_fonts([axes.title for axes in figure.axes], "draw_calibration", stacklevel=2)
    return figure


def _figure(where: str, width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError(where, "no package matplotlib", "pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def _names(names: Sequence[str] | None, size: int, where: str) -> Sequence[str]:
    if names is None:
        return [f"x{k}" for k in range(size)]
    if len(names) != size:
        raise ShapeError(where, f"{len(names)} names", f"expected {size}, one per element")
    return names
