"""Exported programs give what the graph gives, at any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case, each_part, some_parts
from compiling import Holder, in_a_graph
from small_graphs import build, deep_graph
from torch import Tensor, nn
from training import make_flow

import invgraph as ig
from invgraph.export.fold import folded_program
from invgraph.export.program import What
from invgraph.export.trace import as_program

# What torch's own exporters warn of while they work.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
BATCHES = (1, 4, 33)
# Layers that can't be exported (a trace of a vector-Jacobian product), and what ONNX has no operators for.
UNEXPORTABLE = frozenset({"ContinuousFlow"})
NOT_IN_ONNX = {
    "Residual": "slogdet",
    "Dequantize-variational": "ndtri",
}


class DataDependent(ig.Invertible):
    """A layer that looks at its data: it can't be exported."""

    @property
    def out_shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.in_shapes

    def _forward(self, xs: tuple[Tensor, ...], cs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        return ((xs[0] if xs[0].sum() > 0 else -xs[0]),), xs[0].new_zeros(xs[0].shape[0])

    _inverse = _forward


def expected(flow: ig.Flow, what: What, x: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    if what == "log_prob":
        return (flow.log_prob(x, c),)
    result, log_det = flow.graph(x, c) if what == "forward" else flow.graph.inverse(x, c)
    return (result,) if what == "sample" else (result, log_det)


@pytest.mark.parametrize("what", ["log_prob", "sample", "forward", "inverse"])
def test_programs_of_a_flow(what: What) -> None:
    flow = ig.Flow(build(lambda: deep_graph(2), torch.float32))
    program = ig.export(flow, what)
    for batch in BATCHES:
        x, c = torch.randn(batch, 8), torch.randn(batch, 3)
        results = program.module()(x, c)
        results = results if isinstance(results, tuple) else (results,)
        for ours, theirs in zip(results, expected(flow, what, x, c), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", each_part(one_in=8, slow_in=3))
def test_every_layer_exports_or_is_named(case: Case) -> None:
    graph = in_a_graph(case.shortened(), torch.float32)
    xs, cs = case.data(graph, torch.float32, batch=3)
    if case.cls.__name__ in UNEXPORTABLE:
        with pytest.raises(ig.GraphError, match="'layer'"):
            ig.export(graph, "forward", example=(*xs, *cs))
        return
    program = ig.export(graph, "forward", example=(*xs, *cs))
    xs, cs = case.data(graph, torch.float32, batch=5, seed=1)
    with torch.no_grad():
        ys, log_det = graph(xs, cs)
        for ours, theirs in zip(program.module()(*xs, *cs), (*ys, log_det), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def onnx_agrees(graph: ig.Graph, case: Case, path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    xs, cs = case.data(graph, torch.float32, batch=3)
    ig.export_onnx(graph, path, "forward", example=(*xs, *cs))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        xs, cs = case.data(graph, torch.float32, batch=batch, seed=2)
        feeds = {node.name: t.numpy() for node, t in zip(session.get_inputs(), (*xs, *cs), strict=True)}
        with torch.no_grad():
            ys, log_det = graph(xs, cs)
        for ours, theirs in zip(session.run(None, feeds), (*ys, log_det), strict=True):
            error = (torch.from_numpy(ours) - theirs).abs().max() / theirs.abs().max().clamp_min(1)
            assert error <= 1e-5


MATRICES: dict[str, tuple[type[ig.Invertible], dict[str, Any], tuple[int, ...]]] = {
    "rotation": (ig.Conv1x1, {"orthogonal": True}, (3, 2, 2)),
    "plu": (ig.Conv1x1, {}, (3, 2, 2)),
    "exp": (ig.OrthogonalLinear, {}, (4,)),
    "cayley": (ig.OrthogonalLinear, {"chart": "cayley"}, (4,)),
}


def learned_matrix(name: str) -> tuple[ig.Graph, tuple[int, ...]]:
    layer, args, shape = MATRICES[name]
    x = ig.InputNode(*shape, name="x")
    graph = ig.Graph(x, ig.Node(x, layer, args))
    ig.testing.randomize(graph)
    return graph.eval(), shape


FOLDED = [
    pytest.param(name, what, marks=() if (name, what) in (("plu", "inverse"), ("exp", "forward")) else pytest.mark.slow)
    for name in MATRICES
    for what in ("forward", "inverse")
]


@pytest.mark.parametrize(("name", "what"), FOLDED)
def test_matrices_of_parameters_alone_are_constants_in_onnx(name: str, what: What) -> None:
    """ONNX has no operators for matrix exponentials and solutions of linear systems."""
    graph, shape = learned_matrix(name)
    folded = folded_program(ig.export(graph, what)).module()
    assert not [node for node in folded.graph.nodes if "linalg" in str(node.target)]
    x = torch.randn(5, *shape)
    expected = graph(x) if what == "forward" else graph.inverse(x)
    for ours, theirs in zip(folded(x), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["forward", "inverse"])
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_in_onnx(name: str, what: What, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    graph, shape = learned_matrix(name)
    ig.export_onnx(graph, tmp_path / "graph.onnx", what)
    session = runtime.InferenceSession(str(tmp_path / "graph.onnx"))
    x = torch.randn(5, *shape)
    expected = graph(x) if what == "forward" else graph.inverse(x)
    for ours, theirs in zip(session.run(None, {session.get_inputs()[0].name: x.numpy()}), expected, strict=True):
        assert torch.allclose(torch.from_numpy(ours), theirs, atol=1e-5)


def test_random_numbers_and_changes_are_no_constants() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, *tensors: Tensor) -> Tensor:
            self.count += 1
            return tensors[0] + torch.rand(3) + self.count  # type: ignore[no-any-return]

    folded = folded_program(as_program(Module(), (torch.zeros(2, 3),))).module()
    x = torch.zeros(2, 3)
    first, second = folded(x), folded(x)
    assert not torch.equal(first.frac(), second.frac())
    assert second.floor().eq(2).all()


@pytest.mark.parametrize("what", ["forward", "inverse", "sample"])
def test_a_graph_on_an_interval_needs_no_base(what: What) -> None:
    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Sigmoid()}))
    z = torch.rand(5, 2)
    result = ig.export(graph, what).module()(z)
    expected = graph(z) if what == "forward" else graph.inverse(z)
    assert torch.equal(result if what == "sample" else result[0], expected[0])
    with pytest.raises(ig.GraphError, match="standard normal"):
        ig.export(graph, "log_prob")


ONNX_FAST = [case for case in CASES if case.cls in (ig.Haar, ig.Permute)][:2] + [
    case for case in CASES if case.cls is ig.Coupling
][2:3]


@pytest.mark.parametrize("case", ONNX_FAST, ids=[case.id for case in ONNX_FAST])
def test_onnx(case: Case, tmp_path: Path) -> None:
    onnx_agrees(in_a_graph(case, torch.float32), case, tmp_path / "graph.onnx")


@pytest.mark.parametrize("case", some_parts(one_in=8))
def test_every_layer_in_onnx_or_is_named(case: Case, tmp_path: Path) -> None:
    missing = next((operator for start, operator in NOT_IN_ONNX.items() if case.id.startswith(start)), None)
    if case.cls.__name__ in UNEXPORTABLE or missing:
        with pytest.raises(ig.GraphError, match=f"'layer'(?s:.*)export with(?s:.*)({missing or ''})"):
            onnx_agrees(in_a_graph(case, torch.float32), case, tmp_path / "graph.onnx")
    else:
        onnx_agrees(in_a_graph(case, torch.float32), case, tmp_path / "graph.onnx")


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    flow = ig.Flow(build(lambda: deep_graph(2), torch.float32))
    path = ig.export_aoti(flow, tmp_path / "log_prob.pt2")
    run = torch._inductor.aoti_load_package(path)
    for batch in BATCHES:
        x, c = torch.randn(batch, 8), torch.randn(batch, 3)
        assert torch.allclose(run(x, c), flow.log_prob(x, c), rtol=1e-5, atol=1e-5)


def test_a_model_stays_in_the_modes_it_was_in(tmp_path: Path) -> None:
    graph = build(lambda: deep_graph(2), torch.float32)
    names = list(graph.layers)
    graph.train()[names[0]].eval()
    before = [module.training for module in graph.modules()]
    ig.export(ig.Flow(graph))
    assert [module.training for module in graph.modules()] == before
    x = ig.InputNode(4, name="x")
    refused = ig.Graph(x, ig.Node(x, DataDependent))
    with pytest.raises(ig.GraphError, match="can't be exported"):
        ig.export(refused, "forward")
    assert refused.training


def test_what_cannot_be_exported_is_named() -> None:
    x = ig.InputNode(4, name="x")
    h = ig.Node(ig.Node(x, ig.Permute, name="fine"), DataDependent, name="looking")
    with pytest.raises(ig.GraphError, match="'looking'"):
        ig.export(ig.Graph(x, h), "forward")
    for path in (None, 3):
        with pytest.raises(ig.ArgumentError, match="path must be"):
            ig.export_onnx(ig.Graph(x, ig.Node(x, ig.Permute)), path)  # type: ignore[arg-type]
        with pytest.raises(ig.ArgumentError, match="path must be"):
            ig.export_aoti(ig.Graph(x, ig.Node(x, ig.Permute)), path)  # type: ignore[arg-type]
    for example in (3, torch.zeros(2, 4), ["a"]):
        with pytest.raises(ig.ArgumentError, match="a tuple of tensors"):
            ig.export(ig.Graph(x, ig.Node(x, ig.Permute)), example=example)  # type: ignore[arg-type]
    with pytest.raises(ig.GraphError, match="what must be one of"):
        ig.export(ig.Graph(x, ig.Node(x, ig.Permute)), "density")  # type: ignore[arg-type]
    with pytest.raises(ig.ArgumentError, match="expected a Graph or a Flow"):
        ig.export(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind", ["flow", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("held", "reversible"))]
)
def test_torchs_own_exporters_take_a_flow(kind: str) -> None:
    """They have an attribute ``graph`` of their own on every module that they make."""
    flow = make_flow(blocks=1).eval()
    x, c = torch.randn(3, 1, 4, 4), torch.randn(3, 10)
    flow.graph.initialize(x, c)
    ig.testing.randomize(flow)
    module = {"flow": flow, "held": Holder(flow), "reversible": ig.Flow(ig.reversible(flow.graph))}[kind]
    expected = flow.log_prob(x, c)
    with torch.no_grad():
        program = torch.export.export(module, (x, c))
        decomposed = program.run_decompositions()
    for run in (program.module(), decomposed.module(), torch.export.unflatten(program)):
        assert torch.allclose(run(x, c), expected, atol=1e-5)


class Awkward(Holder):
    """A module of a user's that holds a flow under the name that torch's tools have themselves."""

    def __init__(self, flow: ig.Flow) -> None:
        super().__init__(flow)
        self.graph = flow
        del self.flow

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.graph(x, c)  # type: ignore[no-any-return]


def test_a_child_called_graph_is_refused_by_torchs_own_exporter() -> None:
    flow = make_flow(blocks=1).eval()
    x, c = torch.randn(3, 1, 4, 4), torch.randn(3, 10)
    flow.graph.initialize(x, c)
    model = Awkward(flow)
    words = r"Awkward, which holds Flow as self.graph\n.*call it self.flow"
    with torch.no_grad(), pytest.raises(ig.GraphError, match=words):
        torch.export.export(model, (x, c))
    assert ig.export(model.graph).module()(x, c).shape == (3,)
