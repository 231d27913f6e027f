"""One layer in several nodes: tied weights."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from measures import jacobian
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize

MLP = ig.nets.MLP(hidden=5)


def recurrent(layer: ig.Invertible, times: int = 3) -> ig.Graph:
    """Return a graph that applies one layer several times, with fixed rotations between, under a condition."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
    feature = nn.Linear(2, 3)
    features = [ig.FeatureNode(c, feature, name=f"feature_{k}") for k in range(times)]
    h: Any = x
    for k in range(times):
        h = ig.Node(h, ig.Orthogonal, {"seed": k}, name=f"turn_{k}")
        h = ig.Node(h, layer, conditions=features[k], name=f"step_{k}")
    return ig.Graph(x, h, c)


def coupling() -> ig.Coupling:
    return ig.Coupling((4,), ((3,),), transform=ig.Affine(), subnet=MLP)


def data(rows: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, c = (torch.randn(rows, n, dtype=torch.float64, generator=g) for n in (4, 2))
    return x, c


@pytest.fixture
def graph() -> ig.Graph:
    return randomize(recurrent(coupling()), seed=1).double()


def by_hand(graph: ig.Graph, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    total = x.new_zeros(len(x))
    for k in range(3):
        (x,), _ = graph[f"turn_{k}"]((x,))
        (x,), more = graph["step_0"]((x,), (graph["feature_0"](c),))
        total = total + more
    return x, total


def test_it_is_the_layer_again_and_again(graph: ig.Graph) -> None:
    x, c = data()
    z, log_det = graph(x, c)
    expected, total = by_hand(graph, x, c)
    assert torch.equal(z, expected)
    assert torch.allclose(log_det, total, rtol=0, atol=1e-14)
    back, reverse = graph.inverse(z, c)
    assert torch.allclose(back, x, atol=1e-12)
    assert torch.allclose(reverse, -log_det, atol=1e-12)
    exact = torch.linalg.slogdet(jacobian(lambda xs: (lambda z, log: ((z,), log))(*graph(xs[0], c)), (x,))).logabsdet
    assert torch.allclose(log_det, exact, atol=1e-10)
    alone = sum(p.numel() for p in (*graph["step_0"].parameters(), *graph["feature_0"].parameters()))
    assert sum(p.numel() for p in graph.parameters()) == alone


@pytest.mark.parametrize("runner", ["plain", "constant memory", "bound"])
def test_gradients_are_those_of_all_nodes_together(graph: ig.Graph, runner: str) -> None:
    x, c = data()
    parameters = list(graph.parameters())
    z, log_det = by_hand(graph, x, c)
    expected = torch.autograd.grad(z.square().sum() - log_det.sum(), parameters)
    if runner == "bound":
        z, log_det = graph.bind(c, gradients=True)(x[None])
    else:
        z, log_det = (graph if runner == "plain" else ig.reversible(graph))(x, c)
    found = torch.autograd.grad(z.square().sum() - log_det.sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))


def test_checkpoints_and_copies_stay_tied(graph: ig.Graph, tmp_path: Path) -> None:
    x, c = data()
    ig.save(tmp_path / "model", graph)
    loaded = recurrent(coupling()).double()
    ig.load(tmp_path / "model", loaded)
    for twin in (loaded, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert twin["step_0"] is twin["step_2"]
        assert torch.equal(twin(x, c)[1], graph(x, c)[1])


def test_a_state_without_ties_is_refused(graph: ig.Graph) -> None:
    state = {name: value.clone() for name, value in graph.state_dict().items()}
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    state["layers.step_1.subnets.0.0.layers.0.bias"] += 1
    with pytest.raises(ig.GraphError, match="nodes 'step_0', 'step_1', 'step_2' share one layer"):
        graph.load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_a_layer_is_initialized_by_the_first_node_that_holds_it() -> None:
    x, norm = ig.InputNode(2, name="x"), ig.ActNorm((2,))
    double = ig.Node(ig.Node(x, norm, name="first"), ig.FixedLinear, {"matrix": [[3.0, 0.0], [0.0, 5.0]]})
    graph = ig.Graph(x, ig.Node(double, norm, name="second"))
    batch = 2 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) + 1
    graph.initialize(batch)
    (y,), _ = norm((batch,))
    assert y.mean(0).abs().max() < 1e-5
    assert (y.std(0, correction=0) - 1).abs().max() < 1e-5


def skewed() -> Tensor:
    return torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.2]) + 5


def is_standard(value: Tensor) -> bool:
    return bool(value.mean(0).abs().max() < 1e-4 and (value.std(0, correction=0) - 1).abs().max() < 1e-4)


@pytest.mark.parametrize("wrap", [ig.Inverse, lambda norm: ig.Inverse(ig.Inverse(ig.Inverse(norm)))])
def test_a_layer_and_its_inverse_are_initialized_once_where_data_reach_it_first(wrap: Any) -> None:
    norm, x = ig.ActNorm((2,)), ig.InputNode(2, name="x")
    h = ig.Node(ig.Node(x, norm, name="a"), ig.Permute, {"order": (1, 0)})
    graph = ig.Graph(x, ig.Node(h, wrap(norm)))
    for again in (False, True):
        graph.initialize(skewed() * (1 + again), again=again)
        assert is_standard(graph.trace(skewed() * (1 + again)).values["a"])
    x = ig.InputNode(2, name="x")
    h = ig.Node(ig.Node(x, wrap(norm), name="a"), ig.Permute, {"order": (1, 0)})
    first = ig.Graph(x, ig.Node(h, norm))
    first.initialize(skewed(), again=True)
    assert is_standard(first.trace(skewed()).values["a"])


@pytest.mark.parametrize("wrap", [lambda graph: graph, ig.reversible, lambda graph: ig.Inverse(ig.Inverse(graph))])
def test_a_layer_in_two_nested_graphs_is_initialized_once(wrap: Any) -> None:
    norm = ig.ActNorm((2,))

    def inner() -> Any:
        y = ig.InputNode(2, name="y")
        return wrap(ig.Graph(y, ig.Node(ig.Node(y, norm), ig.Permute, {"order": (1, 0)})))

    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(ig.Node(x, inner(), name="a"), inner(), name="b"))
    graph.initialize(skewed())
    assert is_standard(graph.trace(skewed()).values["a"])
    with pytest.raises(ig.GraphError, match="already initialized"):
        graph.initialize(skewed())
    graph.initialize(10 * skewed(), again=True)  # the pass before has left nothing behind
    assert is_standard(graph.trace(10 * skewed()).values["a"])


def test_errors_name_all_its_nodes() -> None:
    x, norm = ig.InputNode(2, name="x"), ig.ActNorm((2,))
    graph = ig.Graph(x, ig.Node(ig.Node(x, norm, name="a"), norm, name="b"))
    with pytest.raises(ig.GraphError, match=r"nodes 'a', 'b' \(ActNorm\)"):
        graph(torch.zeros(1, 2))


def test_a_graph_may_stand_in_two_nodes_and_ties_follow_to_other_sizes() -> None:
    y = ig.InputNode(2, 4, 4, name="y")
    args = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(hidden=3)}
    inner = ig.Graph(y, ig.Node(ig.Node(y, ig.Permute, name="mix"), ig.Coupling, args, name="step"))
    x = ig.InputNode(2, 4, 4, name="x")
    graph = randomize(ig.Graph(x, ig.Node(ig.Node(x, inner, name="one"), inner, name="two"))).double()
    for whole in (graph, graph.at(x=(2, 5, 3))):
        data = torch.randn(2, *whole.in_shapes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        z, log_det = whole(data)
        assert torch.allclose(whole.inverse(z)[0], data, atol=1e-10)
        part = whole["one"]
        middle, more = part(data)
        end, rest = part(middle)
        assert torch.equal(z, end)
        assert torch.equal(log_det, more + rest)
    assert len(list(graph.parameters())) == len(list(inner.parameters()))


@pytest.mark.slow
def test_ties_compile(graph: ig.Graph) -> None:
    x, c = data()
    z, _ = graph(x, c)
    compiled = copy.deepcopy(graph).compile(backend="aot_eager")
    assert torch.allclose(compiled(x, c)[0], z, atol=1e-12)
    assert torch.allclose(compiled.inverse(z.detach(), c)[0], x, atol=1e-12)
