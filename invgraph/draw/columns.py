"""Horizontal places of the cells of a layered drawing, with long arrows straight.

U. Brandes, B. Koepf, "Fast and simple horizontal coordinate assignment", 2001: neighbors are aligned in four ways,
each alignment is packed, and the mean of the two middle ones is taken. Strong links are aligned before all others.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

from invgraph.draw.ranks import Link, Rows

Columns = dict[int, float]


def columns(rows: Rows, gap: float) -> Columns:
    """Return the anchor of each cell.

    Arguments:
        rows: The cells, in rows.
        gap: Least distance between neighbors of a row.
    """
    barred = _conflicts(rows)
    found: list[Columns] = []
    for upward in (False, True):
        for mirrored in (False, True):
            order = [row[::-1] if mirrored else row for row in (rows.rows[::-1] if upward else rows.rows)]
            root, align = _align(rows, order, upward, mirrored, barred)
            xs = _pack(rows, order, root, align, gap, mirrored)
            found.append({cell: -x if mirrored else x for cell, x in xs.items()})
    return _balance(rows, found)


def _strong(links: list[Link]) -> list[Link]:
    return [link for link in links if link.strong] or links


def _conflicts(rows: Rows) -> set[tuple[int, int]]:
    """Return the links that give way to a strong one: which they cross, or which shares an end with them.

    Of two strong links that cross, the first one stays.
    """
    barred: set[tuple[int, int]] = set()
    places = {cell: place for row in rows.rows for place, cell in enumerate(row)}
    for row in rows.rows:
        links = [link for cell in row for link in rows.below[cell]]
        strong = [link for link in links if link.strong]
        for link in links:
            ends = (*rows.above[link.head], *rows.below[link.tail])
            if not link.strong and any(other.strong for other in ends):
                barred.add((link.tail, link.head))
            for other in strong:
                crossing = (places[link.tail] - places[other.tail]) * (places[link.head] - places[other.head]) < 0
                if crossing and (not link.strong or links.index(other) < links.index(link)):
                    barred.add((link.tail, link.head))
    return barred


def _align(
    rows: Rows, order: list[list[int]], upward: bool, mirrored: bool, barred: set[tuple[int, int]]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return for each cell the top of its column, and the next cell of the column."""
    place = {cell: index for row in order for index, cell in enumerate(row)}
    root = {cell: cell for row in order for cell in row}
    align = dict(root)
    for row in order:
        reach = -1
        for cell in row:
            links = _strong(rows.below[cell] if upward else rows.above[cell])
            ends = sorted(
                ((place[link.head if upward else link.tail], link) for link in links), key=lambda pair: pair[0]
            )
            if not ends:
                continue
            for middle in sorted({(len(ends) - 1) // 2, len(ends) // 2}):
                index, link = ends[middle]
                other = link.head if upward else link.tail
                if align[cell] == cell and reach < index and (link.tail, link.head) not in barred:
                    align[other] = cell
                    root[cell] = root[other]
                    align[cell] = root[cell]
                    reach = index
    return root, align


def _pack(
    rows: Rows, order: list[list[int]], root: dict[int, int], align: dict[int, int], gap: float, mirrored: bool
) -> Columns:
    """Return the places of the columns, each as far left as it goes and then as near to its right neighbor."""
    after: dict[int, dict[int, float]] = defaultdict(dict)
    before: dict[int, dict[int, float]] = defaultdict(dict)
    for row in order:
        for left, right in itertools.pairwise(row):
            a, b = rows.cells[left], rows.cells[right]
            distance = gap + (a.left + b.right if mirrored else a.right + b.left)
            u, v = root[left], root[right]
            after[u][v] = before[v][u] = max(distance, after[u].get(v, 0.0))
    waiting = {cell: len(before[cell]) for cell in dict.fromkeys(root.values())}
    ready = [cell for cell, count in waiting.items() if not count]
    sequence: list[int] = []
    xs: Columns = {}
    while ready:
        cell = ready.pop()
        sequence.append(cell)
        xs[cell] = max((xs[other] + distance for other, distance in before[cell].items()), default=0.0)
        for other in after[cell]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    for cell in reversed(sequence):
        if after[cell] and before[cell]:
            xs[cell] = max(xs[cell], min(xs[other] - distance for other, distance in after[cell].items()))
        elif after[cell]:
            xs[cell] = min(xs[other] - distance for other, distance in after[cell].items())
    return {cell: xs[root[cell]] for cell in root}


def _balance(rows: Rows, found: list[Columns]) -> Columns:
    """Return the mean of the two middle places, after the alignments are moved to the narrowest one."""

    def ends(xs: Columns) -> tuple[float, float]:
        return (min(xs[cell] - rows.cells[cell].left for cell in xs), max(xs[c] + rows.cells[c].right for c in xs))

    spans = [ends(xs) for xs in found]
    narrow = min(spans, key=lambda span: span[1] - span[0])
    shifts = [narrow[index % 2] - span[index % 2] for index, span in enumerate(spans)]
    middle: Columns = {}
    for cell in found[0]:
        four = sorted(xs[cell] + shift for xs, shift in zip(found, shifts, strict=True))
        middle[cell] = (four[1] + four[2]) / 2
    return middle
