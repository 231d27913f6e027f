"""A graph bound to its conditions gives what the graph gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import CASES, Case, wide_graph
from small_graphs import both, build, crossed_graph, deep_graph
from torch import Tensor, nn

import invgraph as ig
from invgraph.graph import bound
from invgraph.graph.bound import Binding

CONDITIONAL = [case for case in CASES if case.cond_shapes]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("sizes", [(1, 3), (4, 1), (3, 2), (0, 2), (2, 0)])
@pytest.mark.parametrize("make", [wide_graph, crossed_graph, lambda: deep_graph(3)])
@pytest.mark.parametrize("gradients", [False, True])
def test_graphs(make: Callable[[], ig.Graph], sizes: tuple[int, int], inverse: bool, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        found = both(build(make), inverse, *sizes)
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CONDITIONAL, ids=[case.id for case in CONDITIONAL])
def test_layers(case: Case) -> None:
    module = case.build(torch.float64)
    xs = [ig.InputNode(*shape, name=f"x{i}") for i, shape in enumerate(module.in_shapes)]
    cs = [ig.ConditionNode(*shape, name=f"c{i}") for i, shape in enumerate(module.cond_shapes)]
    graph = ig.Graph(xs, list(ig.Node(xs, module, conditions=cs, name="layer")), cs)
    data = tuple(x.unflatten(0, (3, 2)) for x in case.data(module, torch.float64, batch=6)[0])
    for ours, theirs in zip(*both(graph, False, 3, 2, data), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("make", [wide_graph, crossed_graph, lambda: deep_graph(3)])
def test_many_samples_go_through_in_parts(
    make: Callable[[], ig.Graph], inverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bound.ELEMENTS, "cpu", 100)
    graph = build(make)
    walks = []
    run = Binding.run
    monkeypatch.setattr(Binding, "run", lambda *given: walks.append(len(given[3][0])) or run(*given))
    for ours, theirs in zip(*both(graph, inverse, 50, 2), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    assert len(walks) > 1
    assert sum(walks) == 100


def test_an_estimate_of_a_bound_graph_is_that_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its probes follow from the place in the batch, which parts would begin anew."""
    monkeypatch.setitem(bound.ELEMENTS, "cpu", 16)
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}, conditions=c)
    h = ig.Node(h, ig.Residual, {"hidden": 4, "log_det": "estimate"})
    graph = ig.testing.randomize(ig.Graph(x, h, c)).double().eval()
    values, given = torch.randn(20, 2, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    expected = graph(values.flatten(0, 1), given.repeat(20, 1))[1].view(20, 2)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert torch.allclose(graph.bind(given)(values)[1], expected, atol=1e-12)


def test_parts_are_not_made_where_a_batch_has_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bound.ELEMENTS, "cpu", 1)

    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, 8), nn.BatchNorm1d(8), nn.Linear(8, channels_out))

    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": subnet}, conditions=c), c)
    graph = ig.testing.randomize(graph).double()
    for training in (True, False):
        with torch.no_grad():
            for ours, theirs in zip(*both(graph.train(training), False, 6, 2), strict=True):
                assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("nested", [None, "alone", "in tuples", "inverted"])
def test_conditions_alone_are_computed_once(nested: str | None) -> None:
    calls: list[tuple[int, ...]] = []

    class Features(nn.Linear):
        def forward(self, c: Tensor) -> Tensor:
            if not c.is_meta:
                calls.append(tuple(c.shape))
            return super().forward(c)

    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    told = ig.FeatureNode(c, Features(3, 5), name="told")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    h = ig.Node(x, ig.Coupling, args, conditions=told, name="coupling")
    graph = ig.Graph([x], [h], [c]) if nested == "in tuples" else ig.Graph(x, h, c)
    if nested is not None:
        inner = ig.Inverse(graph) if nested == "inverted" else graph
        graph = ig.Graph(x, ig.Node(x, inner, conditions=c, name="graph"), c)
    ig.testing.randomize(graph)
    given, values = torch.randn(2, 3), torch.randn(64, 2, 4)
    bound = graph.bind(given)
    for n in (1, 5, 64):
        samples, log_det = bound.inverse(values[:n])
    assert calls == [(2, 3)]
    exact = graph.inverse(values.flatten(0, 1), given.repeat(64, 1))
    assert torch.allclose(samples.flatten(0, 1), exact[0], atol=1e-5)
    assert torch.allclose(log_det.flatten(), exact[1], atol=1e-5)


@torch.no_grad()
def test_a_coupling_of_one_side_passes_the_other_on() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8), "sides": 1}
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c)
    z, given = torch.randn(5, 2, 4), torch.randn(2, 3)
    found, _ = graph.bind(given)(z)
    exact, _ = graph(z.flatten(0, 1), given.repeat(5, 1))
    torch.testing.assert_close(found.flatten(0, 1), exact)


def test_gradients_flow_if_asked() -> None:
    graph = build(lambda: deep_graph(2))
    z = torch.randn(3, 2, 8, dtype=torch.float64)
    c = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    graph.bind(c, gradients=True).inverse(z)[0].square().sum().backward()
    bound = c.grad
    c.grad = None
    graph.inverse(z.flatten(0, 1), c.repeat(3, 1))[0].square().sum().backward()
    assert bound is not None
    assert torch.allclose(bound, c.grad, atol=1e-10)  # type: ignore[arg-type]
    c.grad = None
    graph.bind(c).inverse(z)[0].square().sum().backward()
    assert c.grad is None


def test_samples_of_a_flow_are_those_of_its_graph() -> None:
    flow = ig.Flow(build(lambda: deep_graph(2)))
    c = torch.randn(2, 3, dtype=torch.float64)
    x = flow.sample(5, c, 0.7, generator=torch.Generator().manual_seed(0))
    z = torch.randn(10, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.7
    assert torch.allclose(x.flatten(0, 1), flow.graph.inverse(z, c.repeat(5, 1))[0], atol=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    graph = build(lambda: deep_graph(1))
    bound = graph.bind(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ig.ShapeError, match=r"expected \(n, 2, \.\.\.\)"):
        bound(torch.zeros(4, 3, 8, dtype=torch.float64))
    with pytest.raises(ig.ShapeError, match="wrong shape"):
        bound(torch.zeros(4, 2, 7, dtype=torch.float64))
    with pytest.raises(ig.InputTypeError, match="nothing is cast"):
        bound(torch.zeros(4, 2, 8))
    with pytest.raises(ig.InputTypeError, match=r"torch\.Tensor"):
        bound([[0.0]])  # type: ignore[arg-type]
    with pytest.raises(ig.ShapeError, match="condition"):
        graph.bind(torch.zeros(2, 4, dtype=torch.float64))
    x = ig.InputNode(4, name="x")
    with pytest.raises(ig.GraphError, match="nothing to bind"):
        ig.Graph(x, ig.Node(x, ig.Permute)).bind(())


def test_a_graph_that_is_converted_after_bind_is_refused() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c)
    z, condition = torch.randn(2, 5, 4), torch.randn(5, 3)
    bound = graph.bind(condition)
    graph.double()
    for values in (z, z.double()):
        with pytest.raises(ig.InputTypeError, match="bind again"):
            bound.inverse(values)
    bound = graph.bind(condition.double())
    graph.float()
    with pytest.raises(ig.InputTypeError, match="bind again"):
        bound.inverse(z)
