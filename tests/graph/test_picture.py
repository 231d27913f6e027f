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


def test_a_drawing_shows_what_blocks_pass_to_the_next() -> None:
    """Of each pair of models one is folded, or both are, into different pictures."""
    chained, apart = features_of_blocks(chained=True), features_of_blocks(chained=False)
    assert titles(picture(apart))[-4:] == ["f_0–3", "p_0–3", "c_0–3", "output"]
    assert [box.kind for box in picture(chained).boxes] == [box.kind for box in picture(chained, fold=False).boxes]
    straight, swapped = two_streams(swap=False), two_streams(swap=True)
    assert blocks(straight) == [(2, 4)]
    assert blocks(swapped) == [(4, 2)]  # after two swaps each stream is where it was
    assert blocks(joined_streams(swap=False)) == [(3, 4)]
    assert blocks(joined_streams(swap=True)) == [(3, 3)]  # from the first coupling on, with the swap inside
    assert blocks(late_stream()) == [(3, 4)]
    conditioned = [conditioned_streams(on) for on in ("first", "before", "after")]
    assert [blocks(graph) for graph in conditioned] == [[(2, 3)], [(2, 4)], [(2, 4)]]
    graphs = [chained, apart, straight, swapped, *conditioned]
    assert len({graph._repr_svg_() for graph in graphs}) == len(graphs)


def test_networks_that_follow_each_other_are_folded_where_one_value_is_passed() -> None:
    x, c, d = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c"), ig.ConditionNode(3, name="d")
    deep: Any = c
    both: Any = c
    for _ in range(4):
        deep = ig.FeatureNode(deep, nn.Linear(3, 3))
        both = ig.FeatureNode([both, d], nn.Bilinear(3, 3, 3))
    assert blocks(ig.Graph(x, ig.Node(x, ig.Coupling, ARGS, conditions=deep), c)) == [(1, 4)]
    assert blocks(ig.Graph(x, ig.Node(x, ig.Coupling, ARGS, conditions=both), [c, d])) == []


def features_of_blocks(chained: bool) -> ig.Graph:
    x, c, d = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c"), ig.ConditionNode(3, name="d")
    h: Any = x
    feature: Any = c
    for k in range(4):
        feature = ig.FeatureNode(feature if chained else c, nn.Linear(3, 3), name=f"f_{k}")
        h = ig.Node(h, ig.Permute, name=f"p_{k}")
        h = ig.Node(h, ig.Coupling, ARGS, conditions=[feature, d], name=f"c_{k}")
    return ig.Graph(x, h, [c, d])


def two_streams(swap: bool) -> ig.Graph:
    one, two = inputs = ig.InputNode(4, name="one"), ig.InputNode(4, name="two")
    a: Any = one
    b: Any = two
    for k in range(4):
        a, b = ig.Node(a, ig.Coupling, ARGS, name=f"a_{k}"), ig.Node(b, ig.Permute, name=f"b_{k}")
        a, b = (b, a) if swap else (a, b)
    return ig.Graph(inputs, [a, b])


def joined_streams(swap: bool) -> ig.Graph:
    a, b = inputs = ig.InputNode(4, name="one"), ig.InputNode(4, name="two")
    pair: Any = (a, b)
    for k in range(4):
        h = ig.Node(ig.Node(pair, ig.Concat, name=f"join_{k}"), ig.Coupling, ARGS, name=f"couple_{k}")
        pair = [*ig.Node(h, ig.Split, {"sizes": (4, 4)}, name=f"split_{k}")][:: -1 if swap else 1]
    return ig.Graph(inputs, pair)


def late_stream() -> ig.Graph:
    """Build two streams; the one that is read first in every block is made last."""
    one, two = inputs = ig.InputNode(4, name="one"), ig.InputNode(4, name="two")
    a: Any = one
    b: Any = two
    for k in range(4):
        a = ig.Node(a, ig.Permute, name=f"p_{k}")
        b = ig.Node(b, ig.Coupling, ARGS, conditions=a, name=f"b_{k}")
        a = ig.Node(a, ig.Coupling, ARGS, name=f"a_{k}")
    return ig.Graph(inputs, [a, b])


def conditioned_streams(on: str) -> ig.Graph:
    """Build two streams; one is conditioned on the other as it was at first, before the block or within it."""
    one, two = inputs = ig.InputNode(4, name="one"), ig.InputNode(4, name="two")
    a: Any = one
    b: Any = two
    for k in range(4):
        after = ig.Node(b, ig.Permute, name=f"b_{k}")
        given = {"first": two, "before": b, "after": after}[on]
        a, b = ig.Node(a, ig.Coupling, ARGS, conditions=given, name=f"a_{k}"), after
    return ig.Graph(inputs, [a, b])


def blocks(graph: ig.Graph) -> list[tuple[int, int]]:
    """Return number of steps and repetitions of each repeated block."""
    return [(run.period, run.times) for run in Sketch(graph.layers, graph.forward_schedule, True).runs]


def test_tied_parameters_count_once() -> None:
    x = ig.InputNode(4, name="x")
    layer = ig.Coupling((4,), **ARGS)
    h: Any = x
    for k in range(3):
        h = ig.Node(h, layer, name=f"mix_{k}")
    count = sum(parameter.numel() for parameter in layer.parameters())
    assert box(picture(ig.Graph(x, h)), "mix_0–2").tip.endswith(f", {count} parameters in all")


def test_only_equal_blocks_are_called_equal() -> None:
    plain = ARGS | {"sides": 1}
    for other in (
        ARGS | {"transform": ig.Affine(clamp=1.0)}, ARGS | {"subnet": ig.nets.MLP(8)}, plain, plain | {"part": 2},
        ARGS | {"separate": True},
    ):  # fmt: skip
        x = ig.InputNode(4, name="x")
        h: Any = x
        for k in range(4):
            h = ig.Node(ig.Node(h, ig.Permute, name=f"p_{k}"), ig.Coupling, other if k % 3 else ARGS, name=f"c_{k}")
        assert box(picture(ig.Graph(x, h)), "4 ×").tip.startswith("4 blocks, one after the other, which differ in")
    assert box(picture(deep_graph(4)), "4 ×").tip == "4 equal blocks, one after the other"


def test_names_of_a_run_are_merged() -> None:
    assert merge_names(["a_0", "a_1", "a_2"]) == "a_0–2"
    assert merge_names(["stage1_k0_head", "stage1_k1_head"]) == "stage1_k0–1_head"
    assert merge_names(["a_0", "a_2"]) == "a_0, 2"  # a_1 is another node
    assert merge_names([f"a_{2 * k}" for k in range(24)]) == "a_0, 2, …, 46"
    assert merge_names(["left", "right"]) == "left … right"
    assert merge_names(["only"]) == "only"
