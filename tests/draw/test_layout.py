"""Layouts of pictures: nothing overlaps, arrows run downwards and end at their boxes."""

from __future__ import annotations

import itertools
import random
import xml.dom.minidom

import pytest

from invgraph.draw.boxes import Arrow, Box, Picture
from invgraph.draw.layout import TITLE, _Inner, _titled, layout
from invgraph.draw.markup import dot, mermaid
from invgraph.draw.ranks import Cell, Link, Rows, crossings, rank, sort_rows
from invgraph.draw.scene import Mark, Scene
from invgraph.draw.svg import svg
from invgraph.draw.text_width import shorten, text_width


def random_picture(seed: int, boxes: int) -> Picture:
    draw = random.Random(seed)
    names = [Box("layer", f"node_{k}", "Coupling · Affine") for k in range(boxes)]
    arrows = [Arrow((draw.randrange(k), 0), (k, 0), "data", "3×8×8") for k in range(1, boxes)]
    arrows += [Arrow((draw.randrange(k), 1), (k, 1), "condition") for k in range(1, boxes) if draw.random() < 0.4]
    return Picture(tuple(names), tuple(arrows))


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def check(scene: Scene) -> None:
    boxes = [(mark.x, mark.y, mark.width, mark.height) for mark in scene.marks if mark.kind != "repeat"]
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    for x, y, width, height in boxes:
        assert x >= 0
        assert x + width <= scene.width
        assert y >= 0
        assert y + height <= scene.height
    for stroke in scene.strokes:
        heights = [y for _, y in stroke.points]
        assert heights == sorted(heights)
        if stroke.tip:
            x, y = stroke.points[-1]
            assert any(left < x < left + width and abs(y - top) < 0.01 for left, top, width, _ in boxes)


@pytest.mark.parametrize(("seed", "boxes"), [(0, 5), (1, 12), (2, 40), (3, 80)])
def test_boxes_do_not_overlap_and_arrows_end_at_boxes(seed: int, boxes: int) -> None:
    check(layout(random_picture(seed, boxes)))


def test_a_repeated_block_is_laid_out_inside_its_frame() -> None:
    inner = Picture(
        (Box("fixed", "mix"), Box("layer", "couple")),
        (Arrow((0, 0), (1, 0), "data", "4"),),
        (Arrow((-1, 0), (0, 0), "data"), Arrow((-1, 1), (1, 1), "condition")),
        (Arrow((1, 0), (-1, 0), "data", "4"),),
    )
    boxes = (Box("input", "x"), Box("condition", "c"), Box("repeat", "5 ×", inner=inner, times=5), Box("output", "z"))
    arrows = (Arrow((0, 0), (2, 0), "data", "4"), Arrow((1, 0), (2, 1), "condition"), Arrow((2, 0), (3, 0), "data"))
    picture = Picture(boxes, arrows)
    scene = layout(picture)
    check(scene)
    frame = next(mark for mark in scene.marks if mark.kind == "repeat")
    for mark in scene.marks:
        if mark.title in ("mix", "couple"):
            assert frame.x < mark.x
            assert mark.x + mark.width < frame.x + frame.width
            assert frame.y < mark.y < mark.y + mark.height < frame.y + frame.height
    straight = [stroke for stroke in scene.strokes if stroke.kind == "data"]
    assert len({round(x, 2) for stroke in straight for x, _ in stroke.points}) == 1
    assert "subgraph cluster_n2" in dot(picture)
    assert "n1 -.-> n2_1" in mermaid(picture)
    assert 'n2_1 -->|"4"|' not in mermaid(picture)  # the label of what leaves is that of the arrow outside


@pytest.mark.parametrize(
    ("entries", "low", "high"),
    [
        ([], 0, 100),
        ([150], 0, 100),
        ([10, 150], 200, 300),
        ([10, 60, 280], 60, 280),  # both corners are crossed
        ([10, 200, 280], 10, 200),
    ],
)
def test_no_arrow_crosses_the_title_of_a_frame(entries: list[float], low: float, high: float) -> None:
    content = _Inner(Scene(300, 100), dict(enumerate(entries)), {})
    frame = _titled(Mark("repeat", 0, 0, 300, 100, "12 ×"), content)
    assert low < frame.x_title < frame.x_title + text_width(frame.title, TITLE, bold=True) < high


def test_a_chain_is_straight_beside_the_condition_that_all_its_boxes_read() -> None:
    boxes = (Box("condition", "c"), Box("input", "x"), *(Box("layer", f"layer_{k}") for k in range(30)))
    arrows = [Arrow((k + 1, 0), (k + 2, 0), "data", "4") for k in range(30)]
    arrows += [Arrow((0, 0), (k + 2, 1), "condition") for k in range(30)]
    scene = layout(Picture(boxes, tuple(arrows)))
    check(scene)
    assert len({round(x, 1) for stroke in scene.strokes if stroke.kind == "data" for x, _ in stroke.points}) == 1


def test_crossings_are_removed_where_they_can_be() -> None:
    cells = [Cell(10, 10, 10) for _ in range(6)]
    links = [Link(0, 4, True, 0, True, True), Link(1, 3, True, 1, True, True), Link(2, 5, True, 2, True, True)]
    rows = Rows(cells, links, [[0, 1, 2], [3, 4, 5]])
    assert crossings(rows) == 1
    sort_rows(rows)
    assert crossings(rows) == 0


def test_conditions_stand_just_above_their_first_reader() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (4, 3)]
    assert rank(5, edges, late=set()) == [0, 1, 2, 3, 0]
    assert rank(5, edges, late={4}) == [0, 1, 2, 3, 2]


def test_texts_are_escaped_in_every_language() -> None:
    picture = Picture((Box("layer", '<b> & "q" #1', "A\\B"),), ())
    xml.dom.minidom.parseString(svg(layout(picture), "auto", 'a "graph"'))
    assert '\\"q\\"' in dot(picture)
    assert "A\\\\B" in dot(picture)
    assert "<b> &amp; " in dot(picture)
    assert '["#lt;b#gt; #amp; #quot;q#quot; #35;1<br>A#92;B"]' in mermaid(picture)
    assert '"#96;x#96;<br>y"' in mermaid(Picture((Box("layer", "`x`\ny"),), ()))


def test_long_names_are_cut_in_their_middle() -> None:
    assert shorten("a" * 20 + "b" * 20, 10) == "aaaaaa…bbb"
    assert shorten("short", 10) == "short"
