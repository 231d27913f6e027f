"""The aims that were set for the work of the field, and what was measured of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.field import COMPILED, OURS
from tests.benchmarks.field_report import grouped, ratio

Row = Mapping[str, Any]
SECTIONS = ("field", "blocks", "digits", "sampling")
"""The sections in which the aims are measured."""


@dataclass(frozen=True)
class Aim:
    """A figure with a target.

    Attributes:
        text: The figure.
        target: The target.
        value: What was measured; None if it was not.
        least: True if the figure should be at least the target, otherwise at most.
        where: The row that it stands for, where it is the worst of several.
    """

    text: str
    target: float
    value: float | None
    least: bool = True
    where: str = ""

    @property
    def is_met(self) -> bool | None:
        """True if the target is reached; None if the figure was not measured."""
        if self.value is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target


def aims(sections: Mapping[str, Sequence[Row]]) -> list[Aim]:
    """Return all aims, from the rows of the sections."""
    return [
        *_field(sections.get("field", ())),
        *_blocks(sections.get("blocks", ())),
        *_digits(sections.get("digits", ())),
        *_sampling(sections.get("sampling", ())),
    ]


def _field(rows: Sequence[Row]) -> Iterator[Aim]:
    by_work = grouped([dict(row) for row in rows], 1)
    times = {work: found for work, found in by_work.items() if "memory" not in work}
    for work, target in (("MAF, 4 | 10", 1.0), ("MAF, 21", 8.0), ("MAF, 64", 15.0)):
        found = by_work.get(f"{work}: 1,000 samples", {})
        yield Aim(f"{work}: 1,000 samples, best peer / eager", target, ratio(found, OURS))
    eager = [(own, work) for work, found in times.items() if (own := ratio(found, OURS)) is not None]
    compiled = [(own, work) for work, found in times.items() if (own := ratio(found, COMPILED)) is not None]
    train = [(own, work) for own, work in compiled if work.endswith("train step")]
    samples = [
        (found[OURS]["minimum"] / found[COMPILED]["minimum"], work)
        for work, found in times.items()
        if work.endswith("samples") and COMPILED in found
    ]
    for text, target, pairs in (
        ("every row, best peer / eager", 1.0, eager),
        ("every train step, best peer / compiled", 2.0, train),
        ("every row, best peer / compiled", 2.0, compiled),
        ("samples, eager / compiled", 1.0, samples),
    ):
        value, where = min(pairs, default=(None, ""))
        yield Aim(text, target, value, where=where)


def _blocks(rows: Sequence[Row]) -> Iterator[Aim]:
    pairs = [
        (1 / row["ratio"], row["work"])
        for row in rows
        if row["contestant"] == OURS and row["to"] == "FrEIA" and "hard" in row["work"]
    ]
    value, where = min(pairs, default=(None, ""))
    yield Aim("all-in-one chains with hard permutations, FrEIA / eager", 1.3, value, where=where)


def _digits(rows: Sequence[Row]) -> Iterator[Aim]:
    """Targets allow for what even exact arithmetic, rounded at the end, differs by from peers."""
    for dtype in ("float64", "float32"):
        for key, target in (("largest", 1.1), ("mean", 1.02)):
            pairs = [
                (row[f"{key}_ratio"], f"deviation {row['deviation']:.0f}")
                for row in rows
                if row["dtype"] == dtype and row["contestant"] == OURS and f"{key}_ratio" in row
            ]
            value, where = max(pairs, default=(None, ""))
            text = f"splines, {dtype}: {key} error of a round trip / that of the closest peer"
            yield Aim(text, target, value, least=False, where=where)


def _sampling(rows: Sequence[Row]) -> Iterator[Aim]:
    known = {row["contestant"]: row for row in rows if "minimum" in row}
    both, alone = (known.get(f"{OURS}, samples{more}") for more in (" with densities", ""))
    value = both["minimum"] / alone["minimum"] if both and alone else None
    yield Aim("IAF, 128 numbers: samples with densities / samples", 1.1, value, least=False)
    pairs = [(row["peak_bytes"] / row["stated_bytes"], row["contestant"]) for row in rows if "stated_bytes" in row]
    most, where = max(pairs, default=(None, ""))
    yield Aim("samples in chunks: peak memory / that which is stated", 1.0, most, least=False, where=where)


def table(found: Sequence[Aim]) -> str:
    """The aims as text."""
    lines = [f"{'aim':76} {'target':>8} {'measured':>9}"]
    for aim in found:
        verdict = {True: "reached", False: "missed", None: "not measured"}[aim.is_met]
        value = "" if aim.value is None else f"{aim.value:.2f}"
        target = f"{'>=' if aim.least else '<='} {aim.target:.2f}"
        lines.append(f"{aim.text:76} {target:>8} {value:>9}  {verdict}{f' ({aim.where})' if aim.where else ''}")
    return "\n".join(lines)
