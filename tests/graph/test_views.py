"""Tables that a graph prints, and what it measures on a batch."""

from __future__ import annotations

import xml.dom.minidom

import pytest
import torch
from small_graphs import build, crossed_graph, deep_graph, draw

import invgraph as ig


def test_the_table_shows_what_each_node_reads() -> None:
    rows: dict[str, str] = {}
    for line in repr(crossed_graph()).splitlines()[1:]:
        rows.setdefault(line.split()[0], line)  # an output has the name of its node
    columns = rows["node"]
    start, end = columns.index("reads"), columns.index("shapes")
    assert rows["third"][start:end].split() == ["y", "first,", "second,", "feature"]
    assert rows["feature"][start:end].split() == ["first,", "c"]
    assert rows["x"][start:end].split() == []


def test_a_graph_without_conditions_has_no_empty_column() -> None:
    x = ig.InputNode(4, name="x")
    parts = ig.Node(x, ig.Split, {"sizes": (1, 3)}, name="split")
    text = repr(ig.Graph(x, ig.Node([parts[1], parts[0]], ig.Concat, name="join")))
    assert "conditions" not in text
    assert "split[1], split[0]" in text


def test_a_notebook_gets_an_svg() -> None:
    document = xml.dom.minidom.parseString(deep_graph(3)._repr_svg_())
    assert document.documentElement.tagName == "svg"


def test_operations_memory_and_share_of_the_log_det() -> None:
    graph = build(lambda: deep_graph(3), torch.float32)
    before = [module.training for module in graph.modules()]
    (x,), (c,) = draw(graph, batch=5)
    x, c = x.float(), c.float()
    summary = graph.summary(x, c)
    # each of two subnets: 4 numbers and 3 conditions to 6 hidden ones, those to 8; two operations for a multiply-add
    assert summary["coupling_0"].operations == 2 * 2 * (4 * 6 + 3 * 6 + 6 * 8)
    assert summary["permute_0"].operations == 0
    assert summary["permute_0"].kept == 0
    assert 0 < summary["coupling_1"].kept < 5 * 4 * 500
    _, log_det = graph(x, c)
    assert sum(node.log_det for node in summary.nodes) == pytest.approx(log_det.mean().item(), abs=1e-5)
    assert sum(abs(node.share) for node in summary.nodes) == pytest.approx(1.0)
    assert [module.training for module in graph.modules()] == before
    assert all(parameter.grad is None for parameter in graph.parameters())
    assert str(summary).splitlines()[-1].startswith("(all)")
    twice = graph.summary(torch.cat((x, x)), torch.cat((c, c)))
    assert twice["coupling_0"].operations == summary["coupling_0"].operations
    assert twice["coupling_1"].kept == 2 * summary["coupling_1"].kept


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch's forward mode itself
def test_a_layer_that_differentiates_inside_is_measured_too() -> None:
    x = ig.InputNode(3, name="x")
    h = ig.Node(x, ig.ContinuousFlow, {"subnet": ig.nets.ResidualMLP(4, blocks=1), "steps": 2}, name="flow")
    graph = ig.Graph(x, ig.Node(h, ig.Permute, name="mix"))
    summary = graph.summary(torch.zeros(5, 3))
    subnet = graph["flow"].net
    weights = sum(p.numel() for p in subnet.parameters() if p.ndim == 2)
    # two steps of four evaluations; each goes forward once and, for the trace, back three times, not to the time
    assert summary["flow"].operations == 2 * 4 * (2 * weights + 3 * 2 * (weights - 4))
    assert summary["flow"].kept > 0
    assert summary["mix"].operations == 0


def test_a_summary_refuses_what_a_call_refuses() -> None:
    graph = deep_graph(1)
    with pytest.raises(ig.InputTypeError, match=r"call graph.summary\(x, c\)"):
        graph.summary(torch.zeros(2, 8))
    with pytest.raises(ig.ShapeError, match="batch of 0"):
        graph.summary(torch.zeros(0, 8), torch.zeros(0, 3))
    with pytest.raises(ig.ShapeError, match="batch"):
        graph.summary(torch.zeros(2, 8), torch.zeros(3, 3))
    with pytest.raises(ig.GraphError, match="no such node"):
        graph.summary(torch.zeros(2, 8), torch.zeros(2, 3))["other"]
