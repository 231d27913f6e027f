"""Content of a drawing: boxes and arrows between them, before anything has a place on the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

BoxKind = Literal["input", "output", "condition", "feature", "layer", "fixed", "graph", "repeat"]
ArrowKind = Literal["data", "condition", "feature"]
Port = tuple[int, int]
"""A box and the number of one of its outputs (of its inputs, for the end of an arrow at a repeated block)."""


@dataclass(frozen=True)
class Arrow:
    """A value on its way from the box that makes it to a box that reads it.

    Attributes:
        tail: Box that makes the value, and the number of its output.
        head: Box that reads it, and the number of the input; the number matters only for repeated blocks.
        kind: ``"data"`` for values that are transformed, otherwise the kind of what is read as a condition.
        label: Shape of the value, or an empty string.
    """

    tail: Port
    head: Port
    kind: ArrowKind
    label: str = ""


@dataclass(frozen=True)
class Box:
    """One box of a drawing.

    Attributes:
        kind: Kind of the box, which chooses its colors.
        title: First line.
        subtitle: Second line.
        tip: Text that a browser shows when the pointer rests on the box.
        inner: Content of a repeated block; None for all other boxes.
        times: Number of repetitions of ``inner``.
    """

    kind: BoxKind
    title: str
    subtitle: str = ""
    tip: str = ""
    inner: Picture | None = None
    times: int = 1


@dataclass(frozen=True)
class Picture:
    """Boxes and arrows.

    Attributes:
        boxes: The boxes; arrows name them by their place.
        arrows: The arrows.
        entries: Arrows from the edge of a repeated block to its boxes; the tail is ``(-1, number of the entry)``.
        exits: Arrows from its boxes to the edge; the head is ``(-1, number of the exit)``.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    entries: tuple[Arrow, ...] = field(default=())
    exits: tuple[Arrow, ...] = field(default=())

    def walk(self, prefix: str = "n") -> Iterator[tuple[str, Box]]:
        """Yield every box with an identifier of its own, a repeated block before its content."""
        for place, box in enumerate(self.boxes):
            key = f"{prefix}{place}"
            yield key, box
            if box.inner is not None:
                yield from box.inner.walk(f"{key}_")
