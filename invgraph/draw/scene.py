"""Drawing with everything in its place: what the writers of SVG and PNG turn into marks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Point = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A rectangle with two lines of text.

    Attributes:
        kind: Kind of the box, which chooses its colors.
        x, y: Upper left corner.
        width, height: Size.
        title: First line.
        subtitle: Second line.
        tip: Text for the pointer.
        x_title: Left end of the title of a frame, from its left edge.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str = ""
    subtitle: str = ""
    tip: str = ""
    x_title: float = 10.0


@dataclass(frozen=True)
class Stroke:
    """A line through points: straight from an even point to the next, curved from an odd one to the next.

    Attributes:
        kind: Kind of the arrow, which chooses its color.
        points: The points.
        tip: True if it ends in the head of an arrow.
    """

    kind: str
    points: tuple[Point, ...]
    tip: bool


@dataclass(frozen=True)
class Note:
    """A small text beside a line.

    Attributes:
        x: Place of the line.
        y: Middle of the text.
        text: The text.
        side: -1 to the left of the line, 1 to its right; 0 to its right, also where the scene is mirrored.
    """

    x: float
    y: float
    text: str
    side: int


@dataclass
class Scene:
    """Marks, strokes and notes on a page of a size."""

    width: float = 0.0
    height: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def add(self, other: Scene, dx: float, dy: float) -> None:
        """Add all of another scene, moved."""
        self.marks += [replace(mark, x=mark.x + dx, y=mark.y + dy) for mark in other.marks]
        for stroke in other.strokes:
            self.strokes.append(Stroke(stroke.kind, tuple((x + dx, y + dy) for x, y in stroke.points), stroke.tip))
        self.notes += [replace(note, x=note.x + dx, y=note.y + dy) for note in other.notes]

    def mirrored(self) -> Scene:
        """Return the scene with left and right exchanged; texts stay readable."""
        scene = Scene(self.width, self.height)
        scene.marks += [replace(mark, x=self.width - mark.x - mark.width) for mark in self.marks]
        for stroke in self.strokes:
            points = tuple((self.width - x, y) for x, y in stroke.points)
            scene.strokes.append(Stroke(stroke.kind, points, stroke.tip))
        scene.notes += [replace(note, x=self.width - note.x, side=-note.side) for note in self.notes]
        return scene
