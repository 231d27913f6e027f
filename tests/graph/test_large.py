"""Depth is no limit: no step of building, running, copying or saving recurses along the chain."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator

import pytest
import torch

import invgraph as ig


def deep(count: int) -> ig.Graph:
    x = ig.InputNode(2, name="x")
    h = ig.chain(x, *((ig.Permute, {"order": (1, 0)}) for _ in range(count)))
    return ig.Graph(x, h)


NODES = 1200
"""More than Python's stack holds."""


@pytest.fixture(autouse=True)
def default_stack() -> Iterator[None]:
    """Set Python's own limit, which a test that ran before may have raised."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture(scope="module")
def long_graph() -> ig.Graph:
    """Return a chain with few conditioned couplings: torch loads in time quadratic in the number of tensors."""
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(1, name="c")
    args = {"transform": ig.Affine(clamp=0.01), "subnet": ig.nets.MLP(hidden=1), "sides": 1}
    layers = [(ig.Coupling, args) if k % 10 == 9 else (ig.Permute, {"order": (1, 0)}) for k in range(NODES)]
    graph = ig.Graph(x, ig.chain(x, *layers, conditions=c), c).double()
    return ig.testing.randomize(graph, scale=0.01)


def test_a_long_chain_runs_both_ways(long_graph: ig.Graph) -> None:
    x, c = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float64)
    z, log_det = long_graph(x, c)
    back, opposite = long_graph.inverse(z, c)
    assert float((back - x).detach().abs().max()) <= 1e-10
    assert float((log_det + opposite).detach().abs().max()) <= 1e-10
    (z.sum() + log_det.sum()).backward()
    assert all(p.grad is not None for p in long_graph.parameters())


@pytest.mark.slow
def test_a_long_chain_is_copied_pickled_and_printed(long_graph: ig.Graph) -> None:
    long_graph.zero_grad(set_to_none=True)
    x, c = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float64)
    with torch.no_grad():
        z, _ = long_graph(x, c)
        for twin in (copy.deepcopy(long_graph), pickle.loads(pickle.dumps(long_graph))):
            assert torch.equal(twin(x, c)[0], z)
    assert len(repr(long_graph).splitlines()) == NODES + 6
    fresh = long_graph.state_dict()
    long_graph.load_state_dict(fresh)
    assert len(fresh) == len(set(fresh))


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_nodes_build_and_run(count: int) -> None:
    graph = deep(count)
    assert len(graph.layers) == count
    assert sys.getrecursionlimit() < NODES < count
    with torch.no_grad():
        x = torch.randn(1, 2)
        assert torch.equal(graph(x)[0], x)


@pytest.mark.slow
def test_declarations_of_ten_thousand_nodes_are_let_go() -> None:
    """Nodes point back only: letting a long chain go must not overflow the stack either."""
    node = ig.InputNode(2, name="x")
    h: ig.Node | ig.InputNode = node
    for _ in range(10_000):
        h = ig.Node(h, ig.Flatten)
    del h, node


def test_many_branches_build() -> None:
    x = ig.InputNode(500, name="x")
    parts = ig.Node(x, ig.Split, {"sizes": (1,) * 500}, name="split")
    joined = ig.Node([ig.Node(part, ig.Permute) for part in parts], ig.Concat, name="join")
    graph = ig.Graph(x, joined)
    data = torch.randn(2, 500)
    assert torch.equal(graph(data)[0], data)
    assert torch.equal(graph.inverse(data)[0], data)
