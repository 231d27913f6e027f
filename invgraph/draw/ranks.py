"""Rows of a layered drawing: a row for each box, stations of long arrows in between, and few crossings.

The method is the usual one (K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system
structures", 1981): longest paths, dummy nodes, and sweeps that sort each row by the mean place of its neighbors.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

SWEEPS = 8


@dataclass
class Cell:
    """A box, or the station of a long arrow in a row that it crosses.

    Attributes:
        left: Extent to the left of the anchor, which is the point where data enter.
        right: Extent to the right of the anchor.
        height: Height of the box.
        station: True for the station of an arrow.
    """

    left: float
    right: float
    height: float
    station: bool = False


@dataclass
class Link:
    """A piece of an arrow from one row to the next; ``strong`` pieces are drawn straight where possible."""

    tail: int
    head: int
    strong: bool
    arrow: int
    first: bool
    last: bool


@dataclass
class Rows:
    """Cells, the links between neighboring rows, and the order within each row."""

    cells: list[Cell]
    links: list[Link]
    rows: list[list[int]]
    above: dict[int, list[Link]] = field(default_factory=lambda: defaultdict(list))
    below: dict[int, list[Link]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for link in self.links:
            self.above[link.head].append(link)
            self.below[link.tail].append(link)


def rank(count: int, edges: list[tuple[int, int]], late: set[int]) -> list[int]:
    """Return a row for each node: the longest path from above.

    Arguments:
        count: Number of nodes.
        edges: Pairs (from, to); the nodes are numbered such that the graph has no cycle.
        late: Nodes that stand just above the first of their readers.
    """
    readers: dict[int, list[int]] = defaultdict(list)
    waiting = [0] * count
    for tail, head in edges:
        readers[tail].append(head)
        waiting[head] += 1
    ready = [node for node in range(count) if not waiting[node]]
    order: list[int] = []
    rows = [0] * count
    while ready:
        node = ready.pop()
        order.append(node)
        for reader in readers[node]:
            rows[reader] = max(rows[reader], rows[node] + 1)
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    for node in reversed(order):
        if node in late and readers[node]:
            rows[node] = min(rows[reader] for reader in readers[node]) - 1
    return rows


def sort_rows(rows: Rows) -> None:
    """Order each row such that few arrows cross, by sweeps up and down and swaps of neighbors."""
    best, fewest = [list(row) for row in rows.rows], crossings(rows)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for row in rows.rows if down else reversed(rows.rows):
            _sort_row(rows, row, down)
        _swap_neighbors(rows)
        count = crossings(rows)
        if count < fewest:
            best, fewest = [list(row) for row in rows.rows], count
    rows.rows[:] = best


def _places(rows: Rows) -> dict[int, int]:
    return {cell: place for row in rows.rows for place, cell in enumerate(row)}


def _sort_row(rows: Rows, row: list[int], down: bool) -> None:
    places = _places(rows)

    def middle(cell: int) -> float:
        others = [link.tail for link in rows.above[cell]] if down else [link.head for link in rows.below[cell]]
        return sum(places[other] for other in others) / len(others) if others else places[cell]

    row.sort(key=middle)


def _swap_neighbors(rows: Rows) -> None:
    for row in rows.rows:
        for place in range(len(row) - 1):
            left, right = row[place], row[place + 1]
            places = _places(rows)
            gain = 0
            for links, end in ((rows.above, "tail"), (rows.below, "head")):
                ours, theirs = ([places[getattr(link, end)] for link in links[cell]] for cell in (left, right))
                for a, b in itertools.product(ours, theirs):
                    gain += (a > b) - (a < b)
            if gain > 0:
                row[place], row[place + 1] = right, left


def crossings(rows: Rows) -> int:
    """Return the number of pairs of arrows that cross."""
    places = _places(rows)
    total = 0
    for row in rows.rows:
        ends = [(places[link.tail], places[link.head]) for cell in row for link in rows.below[cell]]
        total += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(ends, 2))
    return total
