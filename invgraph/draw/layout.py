"""Layout of a picture, from top to bottom; the content of a repeated block is laid out by the same function."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, replace

from invgraph.draw.boxes import Arrow, Box, Picture, Port
from invgraph.draw.columns import Columns, columns
from invgraph.draw.notes import room, settle
from invgraph.draw.ranks import Cell, Link, Rows, rank, sort_rows
from invgraph.draw.scene import Mark, Note, Point, Scene, Stroke
from invgraph.draw.text_width import shorten, text_width

TITLE, SUBTITLE = 12.5, 11.0
"""Sizes of the texts of boxes, in pixels."""
BETWEEN_ROWS, BETWEEN_CELLS, MARGIN, PADDING = 34.0, 26.0, 16.0, 14.0
_LONGEST = 34


@dataclass
class _Inner:
    """A repeated block that is laid out: its scene, and where on its edges values enter and leave."""

    scene: Scene
    entries: dict[int, float]
    exits: dict[int, float]

    def mirror(self) -> None:
        width = self.scene.width
        self.scene = self.scene.mirrored()
        self.entries = {number: width - x for number, x in self.entries.items()}
        self.exits = {number: width - x for number, x in self.exits.items()}


def layout(picture: Picture) -> Scene:
    """Return the picture with everything in its place, with a margin around it."""
    inside = _lay_out(picture).scene
    scene = Scene(inside.width + 2 * MARGIN, inside.height + 2 * MARGIN)
    scene.add(inside, MARGIN, MARGIN)
    settle(scene)
    return scene


def _lay_out(picture: Picture) -> _Inner:
    """Lay out boxes and arrows; entries and exits of a repeated block are points on its upper and lower edge."""
    boxes = list(picture.boxes)
    inner = {place: _framed(box) for place, box in enumerate(boxes) if box.inner is not None}
    ends = sorted({arrow.tail[1] for arrow in picture.entries})
    leaving = sorted({arrow.head[1] for arrow in picture.exits})
    entry = {number: len(boxes) + place for place, number in enumerate(ends)}
    exit_ = {number: len(boxes) + len(ends) + place for place, number in enumerate(leaving)}
    arrows = list(picture.arrows)
    arrows += [Arrow((entry[a.tail[1]], 0), a.head, a.kind, a.label) for a in picture.entries]
    arrows += [Arrow(a.tail, (exit_[a.head[1]], 0), a.kind, a.label) for a in picture.exits]

    count = len(boxes) + len(ends) + len(leaving)
    late = {place for place, box in enumerate(boxes) if box.kind in ("condition", "feature", "input")}
    where = rank(count, [(arrow.tail[0], arrow.head[0]) for arrow in arrows], late)
    if ends or leaving:
        for place in entry.values():
            where[place] = 0
        for place in exit_.values():
            where[place] = max(where[: len(boxes)]) + 1

    rows = _rows(boxes, inner, count, arrows, where)
    sort_rows(rows)
    _turn_blocks(rows, inner, arrows)
    xs = columns(rows, BETWEEN_CELLS)
    scene, shift = _scene(rows, boxes, inner, arrows, xs)
    placed = {number: xs[cell] + shift for number, cell in entry.items()}
    return _Inner(scene, placed, {number: xs[cell] + shift for number, cell in exit_.items()})


def _framed(box: Box) -> _Inner:
    """Return the content of a repeated block with room for its frame and for the number of repetitions."""
    assert box.inner is not None
    content = _lay_out(box.inner)
    scene = Scene(content.scene.width + 2 * PADDING, content.scene.height)
    scene.add(content.scene, PADDING, 0)
    scene.width = max(scene.width, text_width(box.title, TITLE, bold=True) + 2 * PADDING)
    entries, exits = ({number: x + PADDING for number, x in side.items()} for side in (content.entries, content.exits))
    return _Inner(scene, entries, exits)


def _size(box: Box) -> tuple[float, float]:
    title = text_width(shorten(box.title, _LONGEST), TITLE, bold=True)
    subtitle = text_width(shorten(box.subtitle, _LONGEST + 6), SUBTITLE)
    return max(title, subtitle, 40.0) + 20.0, 40.0 if box.subtitle else 26.0


def _anchor(inner: _Inner) -> float:
    """Return the point of a repeated block's upper edge that is to stand above the rest of the chain."""
    return inner.entries[min(inner.entries)] if inner.entries else inner.scene.width / 2


def _rows(boxes: list[Box], inner: dict[int, _Inner], count: int, arrows: list[Arrow], where: list[int]) -> Rows:
    """Return the cells in their rows; arrows that read one value as a condition share their stations."""
    cells: list[Cell] = []
    for place in range(count):
        if place in inner:
            block, anchor = inner[place].scene, _anchor(inner[place])
            cells.append(Cell(anchor, block.width - anchor, block.height))
        elif place < len(boxes):
            width, height = _size(boxes[place])
            cells.append(Cell(width / 2, width / 2, height))
        else:
            cells.append(Cell(1.0, 1.0, 0.0))
    lines: list[list[int]] = [[] for _ in range(max(where) + 1)]
    stations: dict[tuple[Port, int], int] = {}
    links: list[Link] = []
    for place in range(count):
        lines[where[place]].append(place)
    for number, arrow in sorted(enumerate(arrows), key=lambda pair: (pair[1].kind != "data", pair[0])):
        data, at = arrow.kind == "data", arrow.tail[0]
        for row in range(where[arrow.tail[0]] + 1, where[arrow.head[0]]):
            key = ((-1 - number, 0) if data else arrow.tail, row)
            if key not in stations:
                stations[key] = len(cells)
                cells.append(Cell(3.0, 3.0, 0.0, station=True))
                lines[row].append(stations[key])
                first = at == arrow.tail[0]
                links.append(Link(at, stations[key], data or not first, number, first, False))
            at = stations[key]
        links.append(Link(at, arrow.head[0], data, number, at == arrow.tail[0], True))
    return Rows(cells, links, lines)


def _turn_blocks(rows: Rows, inner: dict[int, _Inner], arrows: list[Arrow]) -> None:
    """Mirror the repeated blocks whose entries would otherwise be reached by crossing arrows."""
    places = {cell: place for row in rows.rows for place, cell in enumerate(row)}
    for block, content in inner.items():
        ends = [(places[link.tail], content.entries[arrows[link.arrow].head[1]]) for link in rows.above[block]]
        wrong = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a in ends for b in ends)
        right = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a in ends for b in ends)
        if wrong > right:
            content.mirror()
            anchor = _anchor(content)
            rows.cells[block].left, rows.cells[block].right = anchor, content.scene.width - anchor


def _scene(
    rows: Rows, boxes: list[Box], inner: dict[int, _Inner], arrows: list[Arrow], xs: Columns
) -> tuple[Scene, float]:
    """Return the scene, and by how much it was moved to the right to begin at zero."""
    tops: list[tuple[float, float]] = []
    y = 0.0
    for row in rows.rows:
        height = max(rows.cells[cell].height for cell in row)
        tops.append((y, y + height))
        y += height + BETWEEN_ROWS
    of_row = {cell: tops[index] for index, row in enumerate(rows.rows) for cell in row}
    scene = Scene()
    for place, box in enumerate(boxes):
        cell, (top, bottom) = rows.cells[place], of_row[place]
        corner = (xs[place] - cell.left, (top + bottom - cell.height) / 2)
        title, subtitle = shorten(box.title, _LONGEST), shorten(box.subtitle, _LONGEST + 6)
        width = cell.left + cell.right
        mark = Mark(box.kind, *corner, width, cell.height, title, subtitle, box.tip)
        scene.marks.append(_titled(mark, inner[place]) if place in inner else mark)
        if place in inner:
            scene.add(inner[place].scene, *corner)
    starts = _ports(rows, inner, arrows, xs, outgoing=True)
    ends = _ports(rows, inner, arrows, xs, outgoing=False)
    for index, link in enumerate(rows.links):
        arrow = arrows[link.arrow]
        (top, low), (high, bottom) = of_row[link.tail], of_row[link.head]
        tall, deep = rows.cells[link.tail].height, rows.cells[link.head].height
        if not rows.cells[link.tail].station:
            top = (top + low + tall) / 2
        if not rows.cells[link.head].station:
            bottom = (high + bottom - deep) / 2
        end = bottom if not rows.cells[link.head].station else high
        tip = link.last and link.head < len(boxes) and link.head not in inner
        points = ((starts[index], top), (starts[index], low), (ends[index], high), (ends[index], end))
        scene.strokes.append(Stroke(arrow.kind, points, tip))
        if link.first and arrow.label and arrow.kind == "data":
            meeting = sum(arrows[other.arrow].kind == "data" for other in rows.above[link.head]) > 1
            scene.notes.append(_note(points, arrow.label, meeting))
    left = min([mark.x for mark in scene.marks] + [note.x - room(note) for note in scene.notes if note.side < 0])
    left = min(left, *(x for stroke in scene.strokes for x, _ in stroke.points)) if scene.strokes else left
    right = max(mark.x + mark.width for mark in scene.marks)
    right = max(right, *(x for stroke in scene.strokes for x, _ in stroke.points)) if scene.strokes else right
    right = max([right, *(note.x + room(note) for note in scene.notes if note.side >= 0)])
    moved = Scene(right - left, y - BETWEEN_ROWS)
    moved.add(scene, -left, 0.0)
    return moved, -left


def _titled(frame: Mark, content: _Inner) -> Mark:
    """Return a frame with its title between the arrows that enter it: in the left corner, if there is room."""
    room = text_width(frame.title, TITLE, bold=True) + 16.0
    edges = [0.0, *sorted(content.entries.values()), frame.width]
    gaps = list(itertools.pairwise(edges))
    left, right = next((gap for gap in (gaps[0], gaps[-1]) if gap[1] - gap[0] >= room), max(gaps, key=_width))
    if right == frame.width and len(gaps) > 1:
        return replace(frame, x_title=right - room + 6.0)
    return replace(frame, x_title=10.0 if left == 0 else (left + right - room) / 2 + 8.0)


def _width(gap: tuple[float, float]) -> float:
    return gap[1] - gap[0]


def _note(points: tuple[Point, ...], text: str, meeting: bool) -> Note:
    """Return the text beside a straight line, or on the outer side of a curve: at its end, unless others meet there."""
    (_, _), (x, low), (end, high), _ = points
    if abs(x - end) < 4:
        return Note(end, (low + high) / 2, text, 0)
    side = 1 if end > x else -1
    return Note(x, low + 8, text, -side) if meeting else Note(end, high - 9, text, side)


def _ports(
    rows: Rows, inner: dict[int, _Inner], arrows: list[Arrow], xs: Columns, *, outgoing: bool
) -> dict[int, float]:
    """Return where each link leaves or reaches its cell, from left to right as its other ends lie."""
    found: dict[int, float] = {}
    groups: dict[int, list[int]] = defaultdict(list)
    for index, link in enumerate(rows.links):
        groups[link.tail if outgoing else link.head].append(index)
    for cell, indices in groups.items():
        if cell in inner:
            sides = inner[cell].exits if outgoing else inner[cell].entries
            for index in indices:
                arrow = arrows[rows.links[index].arrow]
                number = arrow.tail[1] if outgoing else arrow.head[1]
                found[index] = xs[cell] - rows.cells[cell].left + sides[number]
            continue
        found.update(_spread(rows, indices, arrows, xs, cell, outgoing))
    return found


def _spread(
    rows: Rows, indices: list[int], arrows: list[Arrow], xs: Columns, cell: int, outgoing: bool
) -> dict[int, float]:
    """Spread the links along a box's edge; a single value that is transformed passes through the middle."""
    if rows.cells[cell].station or rows.cells[cell].height == 0.0:
        return dict.fromkeys(indices, xs[cell])
    shared: dict[object, list[int]] = defaultdict(list)
    for index in indices:
        arrow = arrows[rows.links[index].arrow]
        shared[arrow.tail if outgoing and arrow.kind != "data" else -1 - index].append(index)

    def other(group: list[int]) -> float:
        ends = [xs[rows.links[index].head if outgoing else rows.links[index].tail] for index in group]
        return sum(ends) / len(ends)

    groups = sorted(shared.values(), key=other)
    half = min(rows.cells[cell].left, rows.cells[cell].right) * 0.8
    data = [k for k, group in enumerate(groups) if arrows[rows.links[group[0]].arrow].kind == "data"]
    if len(data) == 1:
        before, after = data[0], len(groups) - 1 - data[0]
        offsets = [-half * (before - k) / (before + 0.6) for k in range(before)]
        offsets += [0.0, *(half * (k + 1) / (after + 0.6) for k in range(after))]
    else:
        offsets = [half * (2 * (k + 0.5) / len(groups) - 1) for k in range(len(groups))]
    return {index: xs[cell] + offset for group, offset in zip(groups, offsets, strict=True) for index in group}
