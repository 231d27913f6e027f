"""Graphs at other sizes: trained on crops, run on whole pictures."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from measures import jacobian
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize


def restoration(size: int, prefix: str = "") -> ig.Graph:
    """Return a model of pictures under a degraded one, with a conditioning network, two scales and early latents."""
    x, low = ig.InputNode(2, size, size, name="image"), ig.ConditionNode(1, size, size, name="low")
    kind = ig.ConditionNode(3, name="kind")
    half = ig.FeatureNode(low, nn.Conv2d(1, 3, 3, stride=2, padding=1), name="halved")
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.ConvNet(hidden=4)}
    h = ig.Node(x, ig.Haar, {"rebalance": 0.5}, name="haar")
    for k, linear in enumerate((ig.Permute, ig.Orthogonal, ig.Conv1x1)):
        h = ig.Node(h, linear, name=f"mix_{k}")
        h = ig.Node(h, ig.Coupling, args, conditions=(half, kind), name=f"coupling_{k}")
    kept, rest = ig.Node(h, ig.Split, {"sizes": (4, 4)}, name="split")
    rest = ig.Node(rest, ig.Squeeze, name="squeeze")
    rest = ig.Node(rest, ig.AllInOne, {"subnet": args["subnet"]}, conditions=kind, name="block")
    return ig.Graph(x, (kept, ig.Node(rest, ig.Flatten, name="flat")), (low, kind))


def data(size: tuple[int, int], seed: int = 0, rows: int = 2) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    x, low = (torch.randn(rows, c, *size, generator=g, dtype=torch.float64) for c in (2, 1))
    return x, (low, torch.randn(rows, 3, generator=g, dtype=torch.float64))


def test_a_model_trained_on_crops_runs_on_whole_pictures() -> None:
    graph = randomize(restoration(8), seed=1).double()
    step = torch.optim.SGD(graph.parameters(), lr=1e-3)
    for k in range(2):
        z, log_det = graph(*data((8, 8), k))
        loss = torch.stack([part.square().sum() for part in z]).sum() / 2 - log_det.sum()
        step.zero_grad()
        loss.backward()
        step.step()
    whole = graph.at(image=(2, 12, 20), low=(1, 12, 20))
    assert whole.out_shapes == ((4, 6, 10), (240,))
    x, c = data((12, 20))
    z, log_det = whole(x, c)
    back, reverse = whole.inverse(z, c)
    assert (back - x).abs().max() < 1e-10
    assert (log_det + reverse).abs().max() < 1e-9
    small = graph.at(image=(2, 4, 8), low=(1, 4, 8))
    x, c = data((4, 8), rows=1)
    exact = torch.linalg.slogdet(jacobian(lambda xs: small(xs[0], c), (x,))).logabsdet
    assert (small(x, c)[1] - exact).abs().max() < 1e-9


def test_it_is_the_graph_that_would_be_declared_at_that_size() -> None:
    graph, declared = randomize(restoration(8), seed=1).double(), restoration(16).double()
    declared.load_state_dict(graph.state_dict())
    x, c = data((16, 16))
    whole = graph.at(image=(2, 16, 16), low=(1, 16, 16))
    for (ys, log_det), (zs, other) in (
        (whole(x, c), declared(x, c)),
        (whole.inverse(declared(x, c)[0], c), declared.inverse(declared(x, c)[0], c)),
    ):
        pairs = zip(ys, zs, strict=True) if isinstance(ys, tuple) else [(ys, zs)]
        assert all(torch.equal(a, b) for a, b in pairs)
        assert torch.equal(log_det, other)
    assert repr(whole) == repr(declared)


def test_checkpoints_load_both_ways(tmp_path: Path) -> None:
    for size, other in (((8, 8), (16, 8)), ((16, 8), (8, 8))):
        one, two = randomize(restoration(8), seed=1).double(), restoration(8).double()
        saved, loaded = (graph.at(image=(2, *sizes), low=(1, *sizes)) for graph, sizes in ((one, size), (two, other)))
        ig.save(tmp_path / "model", saved)
        ig.load(tmp_path / "model", loaded)
        x, c = data((8, 8))
        assert torch.equal(one(x, c)[1], two(x, c)[1])
    with pytest.raises(ig.CheckpointError):  # a graph declared at another size is another graph
        ig.load(tmp_path / "model", restoration(16).double())


def test_parameters_are_shared_and_copies_stay_so() -> None:
    graph = restoration(8)
    whole = graph.at(image=(2, 16, 16), low=(1, 16, 16))
    assert list(map(id, whole.parameters())) == list(map(id, graph.parameters()))
    assert list(whole.state_dict()) == list(graph.state_dict())
    again = whole.at(image=(2, 8, 8), low=(1, 8, 8))
    assert again._resized_from is graph
    whole.double()
    x, c = data((8, 8))
    graph(x, c)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(whole)))
    assert torch.equal(copied(*data((16, 16)))[1], whole(*data((16, 16)))[1])
    assert graph.at(image=(2, 8, 8)) is graph


def test_every_runner_takes_it() -> None:
    whole = randomize(restoration(8), seed=1).double().at(image=(2, 8, 12), low=(1, 8, 12))
    x, c = data((8, 12))
    _, log_det = whole(x, c)
    bound = whole.bind(c)(x[None])
    back, reverse = whole.bind(c).inverse(bound[0])
    assert (back - x).abs().max() < 1e-10
    assert (bound[1] + reverse).abs().max() < 1e-9
    assert torch.allclose(bound[1][0], log_det)
    assert torch.allclose(ig.reversible(whole)(x, c)[1], log_det)


def test_a_runner_inside_a_graph_says_how_it_gets_another_size() -> None:
    y, x = ig.InputNode(2, 4, 4, name="y"), ig.InputNode(2, 4, 4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.reversible(ig.Graph(y, ig.Node(y, ig.Haar)))))
    with pytest.raises(ig.GraphError, match=r"size can't change: .*make another one of that size, reversible\("):
        graph.at(x=(2, 6, 6))


@pytest.mark.slow
def test_it_compiles() -> None:
    whole = randomize(restoration(8), seed=1).double().at(image=(2, 8, 12), low=(1, 8, 12))
    x, c = data((8, 12))
    log_det = whole(x, c)[1]
    compiled = copy.deepcopy(whole).compile(backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(x, c)[1], log_det)
        assert compiled.at(image=(2, 8, 8), low=(1, 8, 8))._compiled_inverse_impl is None


def test_nested_graphs_follow_and_name_their_nodes() -> None:
    inner = ig.InputNode(1, 4, 4, name="inner")
    nested = ig.Graph(inner, ig.Node(ig.Node(inner, ig.Flatten, name="flat"), ig.Permute, name="shuffle"))
    x = ig.InputNode(1, 4, 4, name="x")
    graph = ig.Graph(x, ig.Node(x, nested, name="nested"))
    with pytest.raises(ig.GraphError) as error:
        graph.at(x=(1, 8, 8))
    assert str(error.value).startswith("Graph.at: node 'nested' (Graph): node 'shuffle' (Permute)\n")
    assert "16 channels became 64" in str(error.value)
    y = ig.InputNode(4, 2, 2, name="y")
    upwards = ig.Graph(y, ig.Node(y, ig.Inverse(ig.Graph(inner, ig.Node(inner, ig.Squeeze))), name="up"))
    assert upwards.at(y=(4, 3, 5)).out_shapes == ((1, 6, 10),)


def test_a_condition_keeps_its_channels_where_a_network_counts_them() -> None:
    x, c = ig.InputNode(3, 4, 4, name="x"), ig.ConditionNode(5, name="c")
    low = ig.ConditionNode(2, 4, 4, name="low")
    args = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(4)}
    feature = ig.FeatureNode(c, nn.Linear(5, 3), name="feature")
    pool = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.AdaptiveAvgPool1d(3), nn.Flatten())
    for conditions, name, shape, words in (
        (c, "c", (6,), r"node 'mix' \(Coupling\)\n.*condition of shape \(6,\) instead of \(5,\)\n.*a vector has none"),
        (
            low,
            "low",
            (3, 4, 4),
            r"node 'mix' .*\n.*shape \(3, 4, 4\) instead of \(2, 4, 4\)\n.*not the number of channels",
        ),
        (
            feature,
            "c",
            (6,),
            r"node 'feature' \(Linear\)\n.*condition of shape \(6,\) instead of \(5,\)\n.*vector has none",
        ),
    ):
        graph = ig.Graph(
            x, ig.Node(x, ig.Coupling, args, conditions=conditions, name="mix"), low if name == "low" else c
        )
        with pytest.raises(ig.GraphError, match=words):
            graph.at(**{name: shape})
    pooled = ig.Node(x, ig.Coupling, args, conditions=ig.FeatureNode(c, pool, name="pool"))
    assert ig.Graph(x, pooled, c).at(c=(6,)).cond_shapes == ((6,),)


def test_what_it_can_not_do_is_refused() -> None:
    graph = restoration(8)
    for shapes, error, words in (
        ({"image": (2, 16, 16)}, ig.GraphError, "node 'coupling_0' .*\n.*\n.*spatial sizes differ"),
        ({"image": (2, 10, 8), "low": (1, 10, 8)}, ig.GraphError, "node 'squeeze' .*\n.*\n.*height 5 is odd"),
        ({"image": (3, 8, 8)}, ig.GraphError, "node 'haar' .*\n.*\n.*its 2 channels became 3"),
        ({"picture": (2, 16, 16)}, ig.GraphError, "the graph has image, low, kind"),
        ({"low": (2, 8, 8)}, ig.GraphError, "node 'halved'"),
        ({"image": (2, 16)}, ig.GraphError, "its 2 channels|expected"),
        ({"image": 16}, ig.ArgumentError, "expected a tuple of ints"),
        ({}, ig.GraphError, "name the shapes that change"),
    ):
        with pytest.raises(error, match=words):
            graph.at(**shapes)  # type: ignore[arg-type]
    graph(*(t.float() if isinstance(t, Tensor) else tuple(map(Tensor.float, t)) for t in data((8, 8))))
