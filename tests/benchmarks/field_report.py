"""Table and plot of the section ``field``: as text, as a list-table for the docs, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.field import COMPILED, OURS

Row = dict[str, Any]
COLUMNS = (OURS, COMPILED, "invgraph reversible", "nflows", "zuko", "normflows", "FrEIA")
PEERS = COLUMNS[3:]


def grouped(rows: Sequence[Row], threads: int) -> dict[str, dict[str, Row]]:
    """The rows with so many threads, by work and contestant."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.get("threads") == threads:
            found.setdefault(row["work"], {})[row["contestant"]] = row
    return found


def value(row: Row) -> float:
    """Milliseconds, or MiB."""
    return float(row["minimum"] * 1e3 if "minimum" in row else row["peak_bytes"] / 2**20)


def cell(row: Row | None) -> str:
    """Minimum and median in ms, or MiB."""
    if row is None:
        return ""
    if "minimum" not in row:
        return f"{value(row):,.1f} MiB"
    digits = 1 if value(row) < 100 else 0
    return f"{value(row):,.{digits}f} ({row['median'] * 1e3:,.{digits}f})"


def ratio(found: dict[str, Row], name: str) -> float | None:
    """Ratio of what the best peer needs to what a contestant needs."""
    peers = [value(row) for peer, row in found.items() if peer in PEERS]
    return min(peers) / value(found[name]) if peers and name in found else None


def list_table(rows: Sequence[Row]) -> str:
    """The rows in reStructuredText, a table for each number of threads."""
    lines: list[str] = []
    for threads in sorted({row["threads"] for row in rows if "threads" in row}):
        title = f"{threads} thread{'' if threads == 1 else 's'}"
        lines += [f".. list-table:: {title}: minimum (median), ms"]
        lines += ["   :class: compact sticky", "   :header-rows: 1", "   :stub-columns: 1", "   :widths: auto", ""]
        head = ("work", *COLUMNS, "best peer / eager", "best peer / compiled")
        lines += [f"   {'*' if index == 0 else ' '} - {name}" for index, name in enumerate(head)]
        for work, found in grouped(rows, threads).items():
            ratios = [ratio(found, name) for name in (OURS, COMPILED)]
            cells = [work, *(cell(found.get(name)) for name in COLUMNS)]
            cells += ["" if one is None else f"{one:.2f}" for one in ratios]
            lines += [f"   {'*' if index == 0 else ' '} - {text}".rstrip() for index, text in enumerate(cells)]
        lines.append("")
    return "\n".join(lines)


def text_table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = []
    for threads in sorted({row["threads"] for row in rows if "threads" in row}):
        lines.append(f"{threads} thread(s), minimum (median) in ms")
        for work, found in grouped(rows, threads).items():
            lines.append(f"  {work}")
            for name, row in found.items():
                own = ratio(found, name)
                over = f"   {own:6.2f} x the best peer" if own is not None and name.startswith(OURS) else ""
                lines.append(f"    {name:22} {cell(row):>22}{over}")
    lines += [f"{row['work']}: {row['contestant']}: {row['failed']}" for row in rows if "failed" in row]
    return "\n".join(lines)


def bars(rows: Sequence[Row], file: Path) -> None:
    """Bars per row: how many times less the library needs than the best peer, on one thread."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    found = {work: own for work, own in grouped(rows, 1).items() if ratio(own, OURS) is not None}
    figure, axes = plt.subplots(figsize=(8, 0.38 * len(found) + 1), layout="constrained")
    for offset, name, label in ((-0.2, OURS, "eager"), (0.2, COMPILED, "compiled")):
        pairs = [(place, ratio(own, name)) for place, own in enumerate(found.values())]
        known = [(place + offset, size) for place, size in pairs if size is not None]
        if known:
            drawn = axes.barh([place for place, _ in known], [size for _, size in known], 0.38, label=label)
            axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize="x-small")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(right=1.4 * axes.get_xlim()[1])  # room for the last label
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(found)), list(found), fontsize="small")
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel("best peer / invgraph (1: as good)")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def write(rows: Sequence[Row], folder: Path) -> str:
    """Write the table for the docs and the plot; return the table as text."""
    (folder / "field.rst").write_text(list_table(rows))
    bars(rows, folder / "performance_field.png")
    return text_table(rows)
