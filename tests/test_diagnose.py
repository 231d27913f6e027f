"""``ig.diagnose`` tells the truth about each node, and leaves no trace."""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import pytest
import torch
from cases import CASES, Case
from torch import Tensor, nn
from training import digest, make_flow

import invgraph as ig
from invgraph.numerics import soft_clamp as clamp
from invgraph.numerics.singular_value import largest_singular_value
from invgraph.testing import randomize


def chained(*layers: Any, dims: int = 4) -> ig.Graph:
    x = ig.InputNode(dims, name="x")
    return ig.Graph(x, ig.chain(x, *layers, name="node"))


def test_gains_are_the_singular_values() -> None:
    matrix = torch.diag(torch.tensor([3.0, 1.0, 0.5, -0.25], dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    graph = chained((ig.FixedLinear, {"matrix": turn @ matrix}), (ig.Orthogonal, {"seed": 1})).double()
    report = ig.diagnose(graph, torch.zeros(2, 4, dtype=torch.float64))
    assert report["node_0"].gain == pytest.approx(3, rel=1e-3)
    assert report["node_0"].inverse_gain == pytest.approx(4, rel=1e-3)
    assert report["node_0"].log_det == pytest.approx(math.log(0.375))
    assert report["node_0"].share == -1
    # The matrices are float32's numbers: rounding has moved them by 1e-7.
    assert report["node_1"].gain == pytest.approx(1, abs=1e-5)
    assert report.whole.gain == pytest.approx(3, rel=1e-3)
    assert report.whole.saturated is None


KINDS = (ig.ActNorm, ig.Conv1x1, ig.Coupling, ig.FixedLinear, ig.Graph, ig.Haar, ig.Householder)
SMOOTH = [case for case in CASES if case.cls in KINDS and not case.without][::4]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.id)
def test_the_power_iteration_finds_the_largest_singular_value(case: Case) -> None:
    module = case.build()
    xs, cs = case.data(module, torch.float64, batch=2)
    module.eval()

    def flat(joined: Tensor) -> Tensor:
        parts = joined.split([x[0].numel() for x in xs], dim=1)
        ys, _ = module(tuple(part.view_as(x) for part, x in zip(parts, xs, strict=True)), cs)
        return torch.cat([y.flatten(1) for y in ys], dim=1)

    joined = torch.cat([x.flatten(1) for x in xs], dim=1)
    full = torch.autograd.functional.jacobian(flat, joined)
    exact = torch.stack([torch.linalg.svdvals(full[row, :, row])[0] for row in range(2)])
    found = largest_singular_value(lambda values: module(values, cs)[0], xs, 200, seed=0)
    assert (found <= exact * (1 + 1e-6)).all()
    assert torch.allclose(found, exact, rtol=0.05)


class Once(torch.autograd.Function):
    """A function that can be differentiated once only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.tensor([5.0, 1.0], dtype=x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * torch.tensor([5.0, 1.0], dtype=grad.dtype)


def test_what_differentiates_once_is_measured_by_differences() -> None:
    x = (torch.ones(3, 2, dtype=torch.float64),)
    found = largest_singular_value(lambda xs: (Once.apply(xs[0]),), x, 100, seed=0)
    assert torch.allclose(found, torch.full((3,), 5.0, dtype=torch.float64), rtol=1e-3)


def test_saturation_is_the_share_of_clamps_at_their_bound() -> None:
    graph = chained((ig.Elementwise, {"transform": ig.Affine(clamp=1.0)}), ig.Flatten)
    with torch.no_grad():
        graph["node_0"].params[0] = torch.tensor([100.0, -100.0, 0.1, 3.0])
    report = ig.diagnose(graph, torch.zeros(5, 4))
    assert report["node_0"].saturated == 0.5
    assert report["node_1"].saturated is None
    assert not clamp.clamp_watchers


@pytest.mark.parametrize("enabled", [True, False])
def test_saturation_of_an_all_in_one_block(enabled: bool) -> None:
    graph = chained((ig.AllInOne, {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=4)}))
    with torch.no_grad():
        list(graph["node_0"].subnet.parameters())[-1][:2] = torch.tensor([100.0, 0.1])
    with ig.fused(enabled):
        assert ig.diagnose(graph, torch.zeros(5, 4))["node_0"].saturated == 0.5


def test_shares_add_up_and_nested_nodes_have_rows_of_their_own() -> None:
    flow = randomize(make_flow())
    outer = ig.InputNode(1, 4, 4, name="outer")
    c = ig.ConditionNode(10, name="c")
    flow.graph.initialize(torch.randn(8, 1, 4, 4), torch.randn(8, 10))
    graph = ig.Graph(outer, ig.Node(ig.Node(outer, flow.graph, conditions=c, name="inner"), ig.Orthogonal, {"seed": 1},
                                    name="turn"), c).double()  # fmt: skip
    x, digits = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    report = ig.diagnose(graph, x, digits)
    names = [node.name for node in report.nodes]
    assert names[:3] == ["inner", "inner.flatten", "inner.norm"]
    assert names[-1] == "turn"
    inner = [node for node in report.nodes if node.name.startswith("inner.")]
    assert sum(node.log_det for node in inner) == pytest.approx(report["inner"].log_det)
    assert sum(abs(node.share) for node in report.nodes if "." not in node.name) == pytest.approx(1)
    assert report.whole.log_det == pytest.approx(graph(x, digits)[1].mean().item())
    assert report.whole.round_trip < 1e-10
    lines = str(report).splitlines()
    assert len(lines) == len(report.nodes) + 3
    for words in ("round trip", "log-det", "share", "inverse gain", "saturated"):
        assert words in lines[0]


def test_the_node_that_loses_precision_stands_out() -> None:
    wild = torch.diag(torch.tensor([1e5, 1.0, 1.0, 1e-5]))
    graph = chained((ig.Orthogonal, {"seed": 0}), (ig.FixedLinear, {"matrix": wild}), (ig.Orthogonal, {"seed": 1}))
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    report = ig.diagnose(graph, x)
    assert report["node_1"].inverse_gain == pytest.approx(1e5, rel=1e-3)
    assert report.whole.round_trip > 10 * report["node_0"].round_trip


def test_a_diagnosis_leaves_no_trace() -> None:
    class Counting(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(a, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, b))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    graph = chained((ig.Coupling, {"transform": ig.Affine(), "subnet": Counting}))
    graph["node_0"].subnets[0].eval()
    before, states, random = digest(graph), [m.training for m in graph.modules()], torch.get_rng_state()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    hooks = [copy.copy(m._forward_pre_hooks) for m in graph.modules()]
    ig.diagnose(graph, x)
    assert digest(graph) == before
    assert [m.training for m in graph.modules()] == states
    assert torch.equal(torch.get_rng_state(), random)
    assert [m._forward_pre_hooks for m in graph.modules()] == hooks
    assert x.grad is None
    assert all(p.grad is None for p in graph.parameters())


def test_values_that_are_not_finite_are_named() -> None:
    graph = chained((ig.Elementwise, {"transform": ig.Affine()}), ig.Flatten)
    with torch.no_grad():
        graph["node_0"].params[1, 2] = float("nan")
    report = ig.diagnose(graph, torch.zeros(2, 4))
    assert math.isnan(report["node_0"].round_trip)
    assert report.worst.name in ("node_0", "node_1")


def test_a_share_of_nan_is_nan() -> None:
    graph = chained((ig.Elementwise, {"transform": ig.Affine(clamp=1.0)}))
    with torch.no_grad():
        graph["node_0"].params.fill_(float("nan"))
    report = ig.diagnose(graph, torch.zeros(2, 4))
    assert math.isnan(report["node_0"].saturated)
    assert "nan %" in str(report)


def test_gains_whose_squares_overflow_or_vanish_are_found() -> None:
    for log in (46.0, -56.0):
        graph = chained(ig.LearnedScaling, dims=2)
        with torch.no_grad():
            graph["node_0"].log_scale.fill_(log)
        report = ig.diagnose(graph, torch.ones(3, 2))
        assert report.whole.gain == pytest.approx(math.exp(log), rel=1e-4)
        assert report.whole.inverse_gain == pytest.approx(math.exp(-log), rel=1e-4)
    graph = chained(*[(ig.Elementwise, {"transform": ig.Affine(clamp=2.0)})] * 24)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.fill_(50.0)
    exact = math.exp(24 * 2 / (math.pi / 2) * math.atan(50 / 2))
    assert ig.diagnose(graph, torch.zeros(2, 4)).whole.gain == pytest.approx(exact, rel=1e-4)
    graph = chained(*[(ig.LearnedScaling, {})] * 2, dims=2)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.fill_(46.0)
    assert ig.diagnose(graph, torch.zeros(2, 2)).whole.gain == math.inf


def test_the_inverse_of_a_dequantization_rounds_and_has_no_gain() -> None:
    affine = (ig.Elementwise, {"transform": ig.Affine()})
    x = torch.arange(20.0).view(5, 4) % 4
    for layers in (((ig.Dequantize, {"levels": 4}), affine), (affine, (ig.Dequantize, {"levels": 4}))):
        report = ig.diagnose(chained(*layers), x)
        gains = {node.layer: (node.gain, node.inverse_gain) for node in (*report.nodes, report.whole)}
        assert gains["Dequantize"] == gains["Graph"] == (pytest.approx(0.25, rel=1e-4), 0)
        assert gains["Elementwise"] == (pytest.approx(1, rel=1e-4), pytest.approx(1, rel=1e-4))


def test_outputs_without_a_derivative_are_ignored() -> None:
    xs = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)
    with torch.no_grad():
        constant = torch.zeros(3, 1, dtype=torch.float64)
    weight = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    found = largest_singular_value(lambda at: (constant, 3 * at[0], at[1].floor(), weight), xs, 20, seed=0)
    assert torch.allclose(found, torch.full((3,), 3.0, dtype=torch.float64), rtol=1e-12)
    for outputs in ((constant,), (weight,), (weight, constant), ()):
        assert torch.equal(largest_singular_value(lambda at, ys=outputs: ys, xs, 20, seed=0), torch.zeros(3).double())


def test_a_compiled_graph_is_measured_as_it_was_declared() -> None:
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(8)}
    inner = randomize(chained(ig.Permute, (ig.Coupling, args)))
    outer = chained(inner, (ig.Coupling, args))
    plain = copy.deepcopy(outer)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    inner.compile(backend="eager")
    outer.compile(backend="eager")
    assert ig.diagnose(outer, x) == ig.diagnose(plain, x)
    assert str(outer.summary(x)) == str(plain.summary(x))
    for graph in (outer, inner):
        assert graph._compiled_call_impl is not None
        assert graph._compiled_inverse_impl is not None
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        outer(x)  # what is compiled runs compiled again
    with clamp.watch_clamps(lambda value, alpha: None):  # as when another thread measures
        assert torch.allclose(outer(x)[0], plain(x)[0])


def test_several_threads_may_measure_at_once() -> None:
    graphs = [chained(ig.Permute).compile(backend="eager") for _ in range(4)]
    threads = [threading.Thread(target=ig.diagnose, args=(graph, torch.zeros(2, 4))) for graph in graphs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        graphs[0](torch.zeros(2, 4))


def test_measurements_need_gradients() -> None:
    graph = chained(ig.Permute, (ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        data = x.clone()
        for measure in (ig.diagnose, ig.Graph.summary):
            with pytest.raises(ig.GraphError, match=r"call under torch\.inference_mode"):
                measure(graph, x)
        made = copy.deepcopy(graph)
    assert ig.diagnose(graph, data) == ig.diagnose(graph, x)
    assert str(graph.summary(data)) == str(graph.summary(x))
    for measure in (ig.diagnose, ig.Graph.summary):
        with pytest.raises(ig.GraphError, match=r"made under torch\.inference_mode"):
            measure(made, x)


def test_measurements_need_values() -> None:
    with torch.device("meta"):
        graph = chained(ig.Permute, ig.ActNorm)
        x = torch.zeros(5, 4)
    for measure in (ig.diagnose, ig.Graph.summary, ig.Graph.initialize):
        with pytest.raises(ig.GraphError, match="on the meta device"):
            measure(graph, x)


def test_without_nodes_or_log_dets() -> None:
    report = ig.diagnose(chained(ig.Permute), torch.zeros(2, 4))
    assert report["node_0"].share == report.whole.share == 0
    x = ig.InputNode(4, name="x")
    empty = ig.diagnose(ig.Graph(x, x), torch.zeros(2, 4))
    assert (empty.nodes, empty.whole.gain) == ((), pytest.approx(1, rel=1e-6))
    with pytest.raises(ig.GraphError, match="without invertible nodes"):
        empty.worst  # noqa: B018


def test_an_empty_batch_and_wrong_arguments() -> None:
    graph = chained(ig.Flatten)
    with pytest.raises(ig.ShapeError, match="batch of 0"):
        ig.diagnose(graph, torch.zeros(0, 4))
    with pytest.raises(ig.ArgumentError, match="expected a Graph"):
        ig.diagnose(ig.Flow(graph), torch.zeros(2, 4))  # type: ignore[arg-type]
    with pytest.raises(ig.ShapeError, match="wrong shape"):
        ig.diagnose(graph, torch.zeros(2, 5))
    for argument in ({"iterations": "a"}, {"iterations": 2.0}, {"seed": "a"}, {"seed": True}):
        with pytest.raises(ig.ArgumentError, match="must be an int"):
            ig.diagnose(graph, torch.zeros(2, 4), **argument)
    with pytest.raises(ig.GraphError, match="iterations must be at least 1"):
        ig.diagnose(graph, torch.zeros(2, 4), iterations=0)
    for name in ("node_9", 0):
        with pytest.raises(ig.GraphError, match="no such node; there are node_0"):
            ig.diagnose(graph, torch.zeros(2, 4))[name]


def test_a_flow_in_place_of_its_graph_is_told_to_pass_the_graph() -> None:
    flow: Any = make_flow()
    with pytest.raises(ig.ArgumentError, match=r"Flow\n  expected a Graph: pass its graph"):
        ig.diagnose(flow, torch.zeros(2, 4))


def test_a_reversible_runner_is_measured_as_the_graph_that_it_runs() -> None:
    coupling = randomize(ig.Coupling((2,), transform=ig.Affine(clamp=1.0), subnet=ig.nets.MLP(8)))

    def build(wrap: Any) -> ig.Graph:
        q, p, x = (ig.InputNode(2, name=name) for name in "qpx")
        inner = wrap(ig.Graph(q, ig.Node(q, coupling, name="c")))
        middle = ig.Graph(p, ig.Node(p, inner, name="deep"))
        h = ig.Node(x, inner, name="in")
        return ig.Graph(x, ig.Node(ig.Node(h, ig.Inverse(wrap(middle)), name="back"), inner, name="again"))

    data = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    plain, graph = build(lambda inner: inner), build(ig.reversible)
    parts, before = list(graph.modules()), digest(graph)
    report = ig.diagnose(graph.train(), data)
    assert report == ig.diagnose(plain, data)
    assert {"in", "in.c", "back", "again", "again.c"} == {node.name for node in report.nodes}
    assert list(graph.modules()) == parts
    assert all(part.training for part in parts)
    assert digest(graph) == before
