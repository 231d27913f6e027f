"""Tables of text for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from unicodedata import combining, east_asian_width


def cells_of(text: str) -> int:
    """Return the number of a terminal's cells that a text takes: two for each Chinese, Japanese or Korean letter."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def lines_of(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """Return the lines of a table: the first row, a rule, and the other rows.

    Arguments:
        rows: Texts of each row; the first one is the heads of the columns.
        numbers: Columns that are aligned on the right.
    """
    widths = [max(map(cells_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        aligned = []
        for place, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cells_of(text))
            aligned.append(space + text if place in numbers else text + space)
        lines.append("  ".join(aligned).rstrip())
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
