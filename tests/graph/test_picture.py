"""Pictures of graphs: what is drawn, and which blocks are drawn once."""

from __future__ import annotations

from typing import Any

from small_graphs import crossed_graph, deep_graph
from torch import nn

import invgraph as ig
from invgraph.draw.boxes import Box, Picture
from invgraph.graph.fold import Item, Run, runs
from invgraph.graph.picture import Sketch, merge_names

ARGS: dict[str, Any] = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}


def picture(graph: ig.Graph, fold: bool = True) -> Picture:
    return Sketch(graph.layers, graph.forward_schedule, fold).picture()


def titles(picture: Picture) -> list[str]:
    return [box.title for _, box in picture.walk()]


def box(picture: Picture, title: str) -> Box:
    return next(box for _, box in picture.walk() if box.title == title)


def test_equal_blocks_are_drawn_once() -> None:
    graph = deep_graph(10)
    folded = picture(graph)
    assert titles(folded) == ["x", "c", "10 ×", "permute_0–9", "coupling_0–9", "output"]
    assert "parameters in all" in box(folded, "coupling_0–9").tip
    everything = picture(graph, fold=False)
    assert len(everything.boxes) == 2 + 20 + 1
    assert sum(arrow.kind == "condition" for arrow in everything.arrows) == 10


def test_kinds_follow_what_a_box_is() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
    feature = ig.FeatureNode(c, nn.Linear(2, 3), name="f")
    inner = ig.InputNode(4)
    nested = ig.Graph(inner, ig.Node(inner, ig.Permute))
    h = ig.Node(ig.Node(x, nested, name="nested"), ig.Coupling, ARGS, conditions=feature, name="mix")
    h = ig.Node(h, ig.Inverse(ig.Permute((4,))), name="back")
    found = picture(ig.Graph(x, h, c))
    kinds = {box.title: (box.kind, box.subtitle) for box in found.boxes}
    assert kinds == {
        "x": ("input", "input 4"), "c": ("condition", "condition 2"), "f": ("feature", "Linear → 3"),
        "nested": ("graph", "Graph · 1 node"), "mix": ("layer", "Coupling · Affine"),
        "back": ("fixed", "Inverse of Permute"), "output": ("output", "4"),
    }  # fmt: skip
    assert [arrow.label for arrow in found.arrows if arrow.kind == "data"] == ["4"] * 4
    assert [arrow.kind for arrow in found.arrows].count("feature") == 1


def test_a_value_inside_the_graph_is_drawn_as_a_condition() -> None:
    found = picture(crossed_graph())
    third = next(place for place, box in enumerate(found.boxes) if box.title == "third")
    assert sorted(arrow.kind for arrow in found.arrows if arrow.head[0] == third) == [
        "condition", "condition", "data", "feature",
    ]  # fmt: skip


def test_parts_that_leave_every_block_keep_the_blocks_apart() -> None:
    x = ig.InputNode(8, name="x")
    h: Any = x
    parts = []
    for _ in range(3):
        h = ig.Node(h, ig.Permute)
        h, part = ig.Node(h, ig.Split, {"sizes": (h.shape[0] - 1, 1)})
        parts.append(part)
    found = picture(ig.Graph(x, [*parts, h]))
    assert not any(box.kind == "repeat" for box in found.boxes)


def look(name: str, reads: int, given: tuple[int, ...] = ()) -> Item:
    return Item((name,), ((reads, 0),), tuple((maker, 0) for maker in given))


def test_runs_are_found_with_their_period() -> None:
    chain = [look("AB"[k % 2], k - 1) for k in range(8)]
    assert runs(chain, {(7, 0)}) == [Run(0, 2, 4)]
    assert runs(chain[:3], {(2, 0)}) == []
    same = [look("A", k - 1) for k in range(5)]
    assert runs(same, {(4, 0)}) == [Run(0, 1, 5)]


def test_blocks_that_read_different_conditions_are_not_equal() -> None:
    chain = [look("A", k - 1, (-2 - (k == 2),)) for k in range(5)]
    assert runs(chain, {(4, 0)}) == []
    chain = [look("A", k - 1, (-2,)) for k in range(5)]
    assert runs(chain, {(4, 0)}) == [Run(0, 1, 5)]


def test_a_value_that_is_read_later_ends_the_run_before_it() -> None:
    chain = [look("A", k - 1) for k in range(6)]
    assert runs([*chain, look("B", 5, (2,))], {(6, 0)}) == [Run(0, 1, 3), Run(3, 1, 3)]


def test_names_of_a_run_are_merged() -> None:
    assert merge_names(["a_0", "a_1", "a_2"]) == "a_0–2"
    assert merge_names(["stage1_k0_head", "stage1_k1_head"]) == "stage1_k0–1_head"
    assert merge_names(["left", "right"]) == "left … right"
    assert merge_names(["only"]) == "only"
