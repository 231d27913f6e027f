"""Tables of text stay aligned whatever the letters."""

from __future__ import annotations

import pytest
import torch

import invgraph as ig
from invgraph.draw.table import cells_of, lines_of


@pytest.mark.parametrize(
    ("text", "cells"), [("mix", 3), ("画像", 4), ("かな", 4), ("e\u0301", 1), ("한국", 4), ("ｶﾅ", 2)]
)
def test_cells_of_a_terminal(text: str, cells: int) -> None:
    assert cells_of(text) == cells


def test_columns_are_aligned() -> None:
    assert lines_of([("node", "n"), ("画像", "1,000"), ("x", "2")], numbers=[1]) == [
        "node      n", "----  -----", "画像  1,000", "x         2",
    ]  # fmt: skip


def test_the_tables_of_a_graph_are_aligned() -> None:
    x = ig.InputNode(4, name="画像")
    graph = ig.Graph(x, ig.Node(ig.Node(x, ig.Permute, name="混合する層"), ig.ActNorm, name="mix"))
    data = torch.randn(8, 4)
    graph.initialize(data)
    for shown in (graph, graph.summary(data), ig.diagnose(graph, data), ig.testing.check_invertible(graph)):
        lines = str(shown).split("passed:")[0].splitlines()
        rule = next(place for place, line in enumerate(lines) if line.startswith("---"))
        end = lines[rule].index("  ")
        for line in lines[rule:]:
            cells = "".join(letter + "\0" * (cells_of(letter) - 1) for letter in line)
            assert cells[end : end + 2] == "  "
