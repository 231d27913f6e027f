"""Texts beside arrows hide no arrowhead, stay on the page, and have room for wide letters."""

from __future__ import annotations

import pytest

from invgraph.draw.boxes import Arrow, Box, Picture
from invgraph.draw.layout import layout
from invgraph.draw.notes import NOTE
from invgraph.draw.scene import Scene
from invgraph.draw.text_width import text_width

SPLIT = Picture(
    (Box("fixed", "split", "Split"), Box("layer", "couple", "Coupling"), Box("layer", "prior", "Elementwise · Affine")),
    (
        Arrow((0, 0), (1, 0), "data", "6×16×16"),
        Arrow((0, 1), (2, 0), "data", "6×16×16"),
        Arrow((0, 0), (2, 1), "condition"),
    ),
)
"""A split-off part under a condition whose arrow ends right beside that of the data."""

INNER = Picture(
    (Box("fixed", "mix"), Box("layer", "couple", "Coupling")),
    (Arrow((0, 0), (1, 0), "data", "12×8×8"),),
    (
        Arrow((-1, 0), (0, 0), "data", "12×8×8"),
        *(Arrow((-1, k), (1, k), "feature") for k in range(1, 7)),
    ),
    (Arrow((1, 0), (-1, 0), "data", "12×8×8"),),
)
FEATURES = Picture(
    (
        Box("input", "image"),
        *(Box("feature", f"net_{k}", "Linear") for k in range(6)),
        Box("repeat", "4 ×", inner=INNER, times=4),
    ),
    (Arrow((0, 0), (7, 0), "data", "12×8×8"), *(Arrow((k, 0), (7, k), "feature") for k in range(1, 7))),
)
"""A repeated block whose six conditions come from one side."""


def hidden(scene: Scene) -> list[str]:
    """Return the texts that reach over an arrowhead, or off the page."""
    found = []
    for note in scene.notes:
        width = text_width(note.text, NOTE)
        left = note.x + 6 if note.side >= 0 else note.x - 6 - width
        heads = [stroke.points[3] for stroke in scene.strokes if stroke.tip]
        over = [x for x, y in heads if left < x + 4 and x - 4 < left + width and note.y - 5 < y and y - 8 < note.y + 5]
        if over or left < 0 or left + width > scene.width:
            found.append(note.text)
    return found


@pytest.mark.parametrize("picture", [SPLIT, FEATURES], ids=["split", "features"])
def test_no_text_hides_an_arrowhead(picture: Picture) -> None:
    scene = layout(picture)
    assert scene.notes
    assert hidden(scene) == []


def test_a_text_stands_beside_the_line_that_it_belongs_to() -> None:
    scene = layout(FEATURES)
    lines = [stroke.points for stroke in scene.strokes if stroke.kind == "data"]
    for note in scene.notes:
        assert any(abs(note.x - x) < 1 for line in lines for x, _ in line)


def test_wide_letters_have_room() -> None:
    assert text_width("条件", 10) > 2 * 10
    assert text_width("条件", 10) > 1.5 * text_width("ab", 10)
