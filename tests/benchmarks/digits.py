"""Digits of rational quadratic splines: errors of round trips through equal splines, here and in other libraries.

Every contestant gets the same knots and slopes, so what the slopes cost is the same for all. In float32 there is one
more: a spline whose arithmetic is that of float64, and whose result is rounded to float32. No other can be closer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import invgraph as ig

BINS, BOUND, LEAST = 8, 5.0, 1e-3
DEVIATIONS = (1.0, 2.0, 3.0)
DTYPES = (torch.float64, torch.float32)
Trip = Callable[[Tensor, Tensor], Tensor]
"""The round trip of numbers ``(N,)`` through the splines of parameters ``(N, 3 K - 1)``."""


def own(x: Tensor, params: Tensor) -> Tensor:
    spline = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND, min_width=LEAST, min_height=LEAST, min_slope=LEAST)
    values, raw = x[:, None], params[:, :, None]
    return spline.inverse(spline.forward(values, raw)[0], raw)[0][:, 0]


def own_formula(x: Tensor, params: Tensor) -> Tensor:
    with ig.fused(False):
        return own(x, params)


def rounded(x: Tensor, params: Tensor) -> Tensor:
    wide = torch.float64
    spline = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND, min_width=LEAST, min_height=LEAST, min_slope=LEAST)
    values, raw = x[:, None].to(wide), params[:, :, None].to(wide)
    y = spline.forward(values, raw)[0].to(x.dtype).to(wide)
    return spline.inverse(y, raw)[0][:, 0].to(x.dtype)


def nflows(x: Tensor, params: Tensor) -> Tensor:
    from nflows.transforms.splines import unconstrained_rational_quadratic_spline as spline

    widths, heights, slopes = params.split((BINS, BINS, BINS - 1), dim=1)
    given: dict[str, Any] = {
        "unnormalized_widths": widths, "unnormalized_heights": heights,
        "unnormalized_derivatives": slopes + math.log(math.expm1(1 - LEAST)), "tails": "linear", "tail_bound": BOUND,
        "min_bin_width": LEAST, "min_bin_height": LEAST, "min_derivative": LEAST,
    }  # fmt: skip
    result: Tensor = spline(spline(x, **given)[0], inverse=True, **given)[0]
    return result


def zuko(x: Tensor, params: Tensor) -> Tensor:
    from zuko.transforms import MonotonicRQSTransform

    widths, heights, slopes = params.double().split((BINS, BINS, BINS - 1), dim=1)
    sizes = [(LEAST + (1 - LEAST * BINS) * torch.softmax(raw, 1)).log() for raw in (widths, heights)]
    logs = (LEAST + torch.nn.functional.softplus(slopes + math.log(math.expm1(1 - LEAST)))).log()
    floor = 1e-30  # zuko bounds its parameters by this slope: x / (1 + |x / log(floor)|), undone here
    span = -math.log(floor)
    raw = [log / (1 - factor * log.abs() / span) for log, factor in ((sizes[0], 2), (sizes[1], 2), (logs, 1))]
    spline = MonotonicRQSTransform(*[part.to(x.dtype) for part in raw], bound=BOUND, slope=floor)
    result: Tensor = spline.inv(spline(x))
    return result


EXACT = "rounded alone"
CONTESTANTS: dict[str, Trip] = {
    "invgraph": own, "invgraph, no kernels": own_formula, "nflows": nflows, "zuko": zuko, EXACT: rounded,
}  # fmt: skip
PEERS = ("nflows", "zuko")


@torch.no_grad()
def run(draws: int = 40, count: int = 20_000) -> list[dict[str, Any]]:
    """Return a row for each dtype, deviation of the parameters, and contestant.

    Arguments:
        draws: Number of repetitions.
        count: Number of splines of a repetition, with one number each.

    Returns:
        Rows with ``largest``, the geometric mean over the repetitions of the largest error, ``mean``, the mean error,
        and the ratios of both to those of the closest peer.
    """
    found: list[dict[str, Any]] = []
    for dtype in DTYPES:
        for deviation in DEVIATIONS:
            source = torch.Generator().manual_seed(0)
            errors: dict[str, list[tuple[float, float]]] = {}
            for _ in range(draws):
                params = (torch.randn(count, 3 * BINS - 1, generator=source, dtype=torch.float64) * deviation).to(dtype)
                x = ((2 * torch.rand(count, generator=source, dtype=torch.float64) - 1) * 0.99 * BOUND).to(dtype)
                for name, trip in CONTESTANTS.items():
                    if name == EXACT and dtype == torch.float64:
                        continue
                    try:
                        error = (trip(x, params) - x).double().abs()
                    except ImportError:
                        continue
                    errors.setdefault(name, []).append((error.max().item(), error.mean().item()))
            found += _rows(errors, {"work": "round trip", "dtype": str(dtype).split(".")[1], "deviation": deviation})
    return found


def _rows(errors: dict[str, list[tuple[float, float]]], told: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {}
    for name, pairs in errors.items():
        largest = math.exp(sum(math.log(most) for most, _ in pairs) / len(pairs))
        rows[name] = {"largest": largest, "mean": sum(mean for _, mean in pairs) / len(pairs)}
    peers = [row for name, row in rows.items() if name in PEERS]
    for row in list(rows.values()) if peers else ():
        for key in ("largest", "mean"):
            row[f"{key}_ratio"] = row[key] / min(peer[key] for peer in peers)
    return [{**told, "contestant": name, **row} for name, row in rows.items()]


def list_table(rows: list[dict[str, Any]]) -> str:
    """The rows in reStructuredText, a line for each dtype and deviation: the mean error, and the largest."""
    names = list(CONTESTANTS)
    lines = [".. list-table:: Error of a round trip: mean (largest)"]
    lines += ["   :class: compact sticky", "   :header-rows: 1", "   :stub-columns: 1", "   :widths: auto", ""]
    cells = [["dtype, deviation of the parameters", *names]]
    for dtype, deviation in dict.fromkeys((row["dtype"], row["deviation"]) for row in rows):
        own = {row["contestant"]: row for row in rows if (row["dtype"], row["deviation"]) == (dtype, deviation)}
        cells.append([f"{dtype}, {deviation:.0f}"])
        cells[-1] += [f"{own[name]['mean']:.1e} ({own[name]['largest']:.1e})" if name in own else "" for name in names]
    lines += [f"   {' ' if index else '*'} - {cell}".rstrip() for row in cells for index, cell in enumerate(row)]
    return "\n".join([*lines, ""])


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'spline, round trip':18} {'deviation':>9} {'contestant':22} {'largest':>9} {'ratio':>6} {'mean':>9} {'ratio':>6}"]  # fmt: skip # noqa: E501
    for row in rows:
        ratios = [f"{row[key]:6.2f}" if key in row else " " * 6 for key in ("largest_ratio", "mean_ratio")]
        lines.append(
            f"{row['dtype']:18} {row['deviation']:9.0f} {row['contestant']:22} {row['largest']:9.1e} {ratios[0]} "
            f"{row['mean']:9.1e} {ratios[1]}"
        )
    return "\n".join(lines)
