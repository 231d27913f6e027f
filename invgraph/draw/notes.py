"""Places of the texts beside arrows, such that they hide as little as possible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from invgraph.draw.scene import Mark, Note, Point, Scene, Stroke
from invgraph.draw.text_width import text_width

NOTE = 10.5
"""Size of the text, in pixels."""

_HALF = 7.0  # half of a line's height
_STEPS = 12
_TIP = 100  # a hidden arrowhead is worse than any hidden line

Rectangle = tuple[float, float, float, float]


def room(note: Note) -> float:
    """Return how far a text reaches from its line."""
    return text_width(note.text, NOTE) + 6.0


def settle(scene: Scene) -> None:
    """Move each text of a finished scene to the other side of its line, or a little up, if it hides less there."""
    outlines = [(_outline(stroke), stroke) for stroke in scene.strokes]
    for place, note in enumerate(scene.notes):
        other = -1 if note.side >= 0 else 1
        choices = [
            note,
            replace(note, side=other),
            replace(note, y=note.y - 6),
            replace(note, y=note.y - 6, side=other),
        ]
        scene.notes[place] = min(choices, key=lambda choice: _hidden(choice, scene, outlines))


def _rectangle(note: Note) -> Rectangle:
    width = room(note) - 6.0
    left = note.x + 6 if note.side >= 0 else note.x - 6 - width
    return left, note.y - _HALF, left + width, note.y + _HALF


def _outline(stroke: Stroke) -> Rectangle:
    xs, ys = zip(*stroke.points, strict=True)
    return min(xs) - 4, min(ys), max(xs) + 4, max(ys)


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _hidden(note: Note, scene: Scene, outlines: list[tuple[Rectangle, Stroke]]) -> int:
    """Return how much of lines, arrowheads and boxes a text would hide."""
    area = _rectangle(note)
    if area[0] < 0 or area[2] > scene.width:
        return 10 * _TIP
    found = sum(_TIP for mark in scene.marks if mark.kind != "repeat" and _meet(area, _of_mark(mark)))
    for outline, stroke in outlines:
        if _meet(area, outline):
            found += sum(area[0] <= x <= area[2] and area[1] <= y <= area[3] for x, y in _along(stroke))
            end, bottom = stroke.points[3]
            found += _TIP if stroke.tip and _meet(area, (end - 4, bottom - 8, end + 4, bottom)) else 0
    return found


def _of_mark(mark: Mark) -> Rectangle:
    return mark.x, mark.y, mark.x + mark.width, mark.y + mark.height


def _along(stroke: Stroke) -> Iterator[Point]:
    """Yield points of a line: straight, then along its curve, then straight."""
    (x, top), (_, low), (end, high), (_, bottom) = stroke.points
    for step in range(_STEPS + 1):
        t = step / _STEPS
        bend = t * t * (3 - 2 * t)  # x of the curve, whose control points lie halfway down
        yield x, top + t * (low - top)
        yield x + bend * (end - x), low + (1.5 * t - 1.5 * t * t + t**3) * (high - low)
        yield end, high + t * (bottom - high)
