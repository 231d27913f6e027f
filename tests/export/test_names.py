"""Names of the inputs and outputs of ONNX files, no two of which are equal, and values that pass through unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig
from invgraph.export.program import Program, What

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
ARGS = {"transform": ig.Additive(), "subnet": ig.nets.MLP(8)}


def coupled(name: str = "x", condition: str = "c", output: str = "z") -> ig.Graph:
    x, c = ig.InputNode(4, name=name), ig.ConditionNode(3, name=condition)
    h = ig.Node(x, ig.Coupling, ARGS, conditions=c, name="first")
    graph = ig.Graph(x, ig.Node(h, ig.Permute, {"order": (3, 1, 0, 2)}, name=output), c)
    return ig.testing.randomize(graph.double())


def passing() -> ig.Graph:
    """A graph that returns its second input as it is."""
    a, b = ig.InputNode(2, name="a"), ig.InputNode(2, name="b")
    h = ig.Node(a, ig.Coupling, ARGS, conditions=b, name="z")
    return ig.testing.randomize(ig.Graph([a, b], [b, h]).double())


def reordered() -> ig.Graph:
    """A graph whose layers move nothing: each value is a view of what came in."""
    x = ig.InputNode(2, 2, name="x")
    h = ig.Node(ig.Node(x, ig.Flatten, name="flat"), ig.Permute, {"order": (0, 1, 2, 3)}, name="same")
    return ig.Graph(x, ig.Node(h, ig.Reshape, {"shape": (2, 2)}, name="back")).double()


def run_onnx(path: Path, *tensors: Tensor) -> tuple[list[str], list[str], list[Any]]:
    """Return the names of inputs and outputs of a file, and what it computes."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
    return inputs, [node.name for node in session.get_outputs()], session.run(None, feeds)


CASES: dict[str, tuple[ig.Graph, What, list[str], list[str]]] = {
    "passes": (passing(), "forward", ["a", "b"], ["b_out", "z", "log_det"]),
    "passes back": (passing(), "inverse", ["latent_b", "latent_z"], ["a", "b", "log_det"]),
    "views": (reordered(), "forward", ["x"], ["back", "log_det"]),
    "condition log_prob": (coupled(condition="log_prob"), "log_prob", ["x", "log_prob"], ["log_prob_out"]),
    "value log_det": (coupled(output="log_det"), "forward", ["x", "c"], ["log_det_out", "log_det"]),
    "input log_det": (coupled("log_det"), "forward", ["log_det", "c"], ["z", "log_det_out"]),
    "input log_det back": (coupled("log_det"), "inverse", ["latent_z", "c"], ["log_det_out", "log_det"]),
    "condition latent_z": (coupled(condition="latent_z"), "sample", ["latent_z_in", "latent_z"], ["x"]),
    "value inside": (coupled("val_0", "linear", "relu"), "forward", ["val_0", "linear"], ["relu", "log_det"]),
    "constant inside": (coupled("relu_1", "val_5"), "inverse", ["latent_z", "val_5"], ["relu_1", "log_det"]),
}


def called(graph: ig.Graph, what: What, tensors: list[Tensor]) -> list[Tensor]:
    """Return what the model itself gives, in the order of the program's outputs."""
    ports = graph._outputs() if what in ("inverse", "sample") else graph._inputs()
    count = len(ports.shapes)
    values, conditions = ports.pack(tuple(tensors[:count])), graph._conditions().pack(tuple(tensors[count:]))
    if what == "log_prob":
        return [ig.Flow(graph).log_prob(values, conditions)]
    results, log_det = (graph if what == "forward" else graph.inverse)(values, conditions)
    return [*(results if isinstance(results, tuple) else (results,)), *(() if what == "sample" else (log_det,))]


@pytest.mark.parametrize("case", CASES)
def test_no_two_names_are_equal(case: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    graph, what, inputs, outputs = CASES[case]
    program = Program(graph, what)
    shapes = (*program.source.shapes, *program.given.shapes)
    tensors = [torch.randn(5, *shape, dtype=torch.float64) for shape in shapes]
    ig.export_onnx(graph, tmp_path / "graph.onnx", what, example=[tensor[:2] for tensor in tensors])
    names_in, names_out, results = run_onnx(tmp_path / "graph.onnx", *tensors)
    assert (names_in, names_out) == (inputs, outputs)
    with torch.no_grad():
        ours = called(graph, what, tensors)
    # Torch's exporter rounds numbers of Python, such as the normalization of the base, to float32.
    tolerance = 1e-6 if what == "log_prob" else 1e-12
    for theirs, own in zip(results, ours, strict=True):
        assert torch.allclose(torch.from_numpy(theirs), own, rtol=tolerance, atol=tolerance)


def test_a_value_that_passes_through_is_copied() -> None:
    graph = passing()
    a, b = torch.randn(2, 5, 2, dtype=torch.float64)
    for run in (Program(graph, "forward"), ig.export(graph, "forward").module()):
        again, z, log_det = run(a, b)
        (_, plain), plain_log_det = graph((a, b))
        assert again is not b
        assert torch.equal(again, b)
        assert torch.allclose(z, plain, rtol=1e-12, atol=1e-12)
        assert torch.equal(log_det, plain_log_det)
