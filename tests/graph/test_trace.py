"""Values on the way and log-determinants by node, in both directions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize


def nested() -> ig.Graph:
    """Return a graph with a condition, a feature, a split, a nested graph and the inverse of one."""
    y = ig.InputNode(3, name="y")
    inner = ig.Graph(y, ig.Node(ig.Node(y, ig.Orthogonal, {"seed": 1}, name="turn"), ig.LearnedScaling, name="scale"))
    z = ig.InputNode(2, name="z")
    other = ig.Inverse(ig.Graph(z, ig.Node(z, ig.LearnedScaling, name="stretch")))
    x, c = ig.InputNode(5, name="x"), ig.ConditionNode(2, name="c")
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 2, "out_features": 4}, name="feature")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=4)}
    h = ig.Node(x, ig.Coupling, args, conditions=feature, name="first")
    a, b = ig.Node(h, ig.Split, {"sizes": (3, 2)}, name="split")
    return ig.Graph(x, (ig.Node(a, inner, name="net"), ig.Node(b, other, name="back")), c)


@pytest.fixture
def graph() -> ig.Graph:
    return randomize(nested(), seed=1).double()


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, c = (torch.randn(4, n, generator=g, dtype=torch.float64) for n in (5, 2))
    return x, c


def test_values_by_name_are_those_of_the_layers(graph: ig.Graph) -> None:
    x, c = data()
    trace = graph.trace(x, c)
    names = ["c", "x", "feature", "first", "split[0]", "split[1]", "net", "back"]
    inside = ["net.y", "net.turn", "net.scale", "back.z", "back.stretch"]
    assert sorted(trace.values) == sorted(names + inside)
    values = trace.values
    assert torch.equal(values["feature"], graph["feature"](c))
    (first,), _ = graph["first"]((x,), (values["feature"],))
    assert torch.equal(values["first"], first)
    assert torch.equal(values["split[1]"], first[:, 3:])
    assert torch.equal(values["net.turn"], graph["net"]["turn"]((values["net.y"],))[0][0])
    assert torch.equal(values["net"], values["net.scale"])
    assert torch.equal(values["back.stretch"], values["split[1]"])
    for one, other in zip((*trace.outputs, trace.log_det), (*graph(x, c)[0], graph(x, c)[1]), strict=True):
        assert torch.equal(one, other)


def test_log_dets_add_up_in_both_directions(graph: ig.Graph) -> None:
    x, c = data()
    z, log_det = graph(x, c)
    there, back = graph.log_dets(x, c), graph.log_dets(z, c, inverse=True)
    assert list(there) == ["first", "split", "net", "net.turn", "net.scale", "back", "back.stretch"]
    assert all(part.shape == (4,) for part in there.values())
    assert torch.allclose(sum(there[name] for name in ("first", "split", "net", "back")), log_det, atol=1e-12)
    assert torch.allclose(there["net.turn"] + there["net.scale"], there["net"], atol=1e-12)
    assert there["net.scale"].any()
    for name in there:
        assert torch.allclose(back[name], -there[name], atol=1e-12), name


def test_a_value_has_one_name_in_both_directions(graph: ig.Graph) -> None:
    x, c = data()
    there = graph.trace(x, c)
    back = graph.trace(there.outputs, c, inverse=True)
    assert set(back.values) == set(there.values)
    for name, value in there.values.items():
        assert torch.allclose(back.values[name], value, atol=1e-12), name


def test_losses_may_look_at_inner_values(graph: ig.Graph) -> None:
    graph.trace(*data()).values["first"].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in graph["first"].parameters())


def test_log_dets_of_small_nodes_are_not_rounded_away() -> None:
    x = ig.InputNode(2, name="x")
    big = ig.Node(x, ig.LearnedScaling, name="big")
    graph = ig.Graph(x, ig.Node(big, ig.LearnedScaling, name="small"))
    with torch.no_grad():
        graph["big"].log_scale.fill_(40.0)
        graph["small"].log_scale.fill_(1e-7)
    assert graph.log_dets(torch.ones(1, 2))["small"].item() == pytest.approx(2e-7)


def test_a_wrong_call_is_refused_as_in_a_call(graph: ig.Graph) -> None:
    x, c = data()
    with pytest.raises(ig.ShapeError, match="expected"):
        graph.trace(x[:, :4], c)
    with pytest.raises(ig.InvgraphError, match="condition 'c' is missing"):
        graph.log_dets(x)
    with pytest.raises(ig.ArgumentError, match="inverse must be True or False"):
        graph.trace(x, c, inverse=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["s[0]", "s[1]"])
def test_no_two_values_have_one_name(name: str) -> None:
    x = ig.InputNode(4, name="x")
    first, second = ig.Node(x, ig.Split, {"sizes": (1, 3)}, name="s")
    with pytest.raises(ig.GraphError, match=r"an output of node 's' is called this"):
        ig.Graph(x, (ig.Node(second, ig.LearnedScaling, name=name), first))


@pytest.mark.parametrize("training", [True, False])
def test_a_nested_graph_is_recorded_as_it_ran(training: bool) -> None:
    y = ig.InputNode(4, name="y")
    net: list[nn.Module] = []

    def subnet(channels: int, channels_out: int) -> nn.Module:
        norm, last = nn.BatchNorm1d(8), nn.Linear(8, channels_out)
        net.append(nn.Sequential(nn.Linear(channels, 8), norm, nn.Dropout(0.5), last))
        return net[-1]

    args = {"transform": ig.Affine(), "subnet": subnet, "sides": 1}
    inner = ig.Graph(y, ig.Node(ig.Node(y, ig.Dequantize, {"levels": 4}, name="noise"), ig.Coupling, args, name="mix"))
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, inner, name="net"))
    other = copy.deepcopy(graph)
    data = torch.randint(4, (9, 4), generator=torch.Generator().manual_seed(0)).float()
    results = []
    for one in (graph, other):
        torch.manual_seed(0)
        one.train(training)
        results.append(one.trace(data) if one is graph else one(data))
    trace, (z, log_det) = results
    assert torch.equal(trace.values["net.mix"], trace.values["net"])
    assert torch.equal(trace.values["net"], z)
    assert torch.equal(trace.log_det, log_det)
    torch.testing.assert_close(trace.log_dets["net.noise"] + trace.log_dets["net.mix"], log_det)
    for name, value in graph.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    trace.values["net.mix"].sum().backward()
