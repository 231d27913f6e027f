"""Models, examples and paths that can't be exported are refused before the work begins, with what to do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig

ARGS = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}


def coupled() -> ig.Graph:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, ARGS, conditions=c, name="c1")
    return ig.Graph(x, ig.Node(h, ig.Elementwise, {"transform": ig.Affine()}, name="scale"), c).double()


def rows(*sizes: int, batch: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(batch, size, dtype=dtype) for size in sizes)


def one(layer: Any, args: dict[str, Any] | None = None) -> ig.Graph:
    x = ig.InputNode(4, name="x")
    return ig.Graph(x, ig.Node(x, layer, args or {}, name="own"))


MODELS: dict[str, tuple[Any, str, type[ig.InvgraphError], str]] = {
    "not initialized": (one(ig.ActNorm), "forward", ig.GraphError, r"'own' \(ActNorm\)(?s:.*)call initialize\(batch\)"),
    "half precision": (coupled().bfloat16(), "log_prob", ig.InputTypeError, "keep the flow in float32"),
    "derivatives": (
        one(ig.ContinuousFlow, {"subnet": ig.nets.MLP(8)}),
        "forward",
        ig.GraphError,
        r"'own' \(ContinuousFlow\)(?s:.*)export the rest of the graph",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_the_advice_of_a_layer_is_kept(name: str) -> None:
    model, what, kind, words = MODELS[name]
    with pytest.raises(kind, match=words):
        ig.export(model, what)  # type: ignore[arg-type]


EXAMPLES: dict[str, tuple[Sequence[Tensor], type[ig.InvgraphError], str]] = {
    "too many": (rows(4, 3, 3), ig.ShapeError, "3 tensors\n  expected 2, in this order: x, c"),
    "too few": (rows(4), ig.ShapeError, "1 tensor\n  expected 2, in this order: x, c"),
    "none": ((), ig.ShapeError, "0 tensors\n  expected 2, in this order: x, c"),
    "exchanged": (rows(3, 4), ig.ShapeError, "input 'x': expected"),
    "condition": (rows(4, 4), ig.ShapeError, "condition 'c': expected"),
    "dtype": (rows(4, 3, dtype=torch.float32), ig.InputTypeError, r"expected torch.float64"),
    "integers": (rows(4, 3, dtype=torch.int64), ig.InputTypeError, r"convert it with .float\(\)"),
    "batches": ((*rows(4), *rows(3, batch=2)), ig.ShapeError, "input 'x': batch 3, condition 'c': batch 2"),
    "one row": (rows(4, 3, batch=1), ig.ShapeError, "at least two rows"),
    "no rows": (rows(4, 3, batch=0), ig.ShapeError, "at least two rows"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_must_fit_the_model(name: str) -> None:
    example, kind, words = EXAMPLES[name]
    with pytest.raises(kind, match=words) as caught:
        ig.export(coupled(), "forward", example=example)
    assert caught.value.where.startswith("export")


@pytest.mark.parametrize("what", ["inverse", "sample"])
def test_an_example_of_latents_must_fit_as_well(what: Any) -> None:
    with pytest.raises(ig.ShapeError, match="expected 2, in this order: latent_scale, c"):
        ig.export(coupled(), what, example=rows(4))
    with pytest.raises(ig.ShapeError, match="output 'scale': expected"):
        ig.export(coupled(), what, example=rows(3, 3))


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("what", ["forward", "inverse", "log_prob"])
def test_a_subnet_that_was_cast_on_its_own_is_refused(part: int, what: Any) -> None:
    graph = coupled()
    graph["c1"].subnets[part].float()
    for example in (None, rows(4, 3)):
        with pytest.raises((ig.GraphError, ig.InputTypeError), match=r"torch\.float32") as caught:
            ig.export(graph, what, example=example)
        assert "torch.float64" in str(caught.value)


def test_the_layer_of_a_subnet_that_was_cast_is_named() -> None:
    graph = coupled()
    graph["c1"].subnets[1].float()
    words = r"node 'c1' \(Coupling\)(?s:.*)torch.float32 and torch.float64: cast all of it"
    with pytest.raises(ig.GraphError, match=words):
        ig.export(graph, "forward")


def test_a_layer_that_was_cast_is_refused_behind_one_that_refuses_the_values() -> None:
    """Zeros lie outside the domain of the first layer, which says nothing about the second."""
    x = ig.InputNode(4, name="x")
    h = ig.Node(x, ig.Elementwise, {"transform": ig.Logit(check_domain=True)}, name="first")
    fine = ig.Graph(x, ig.Node(h, ig.Coupling, ARGS, name="second")).double()
    half = torch.full((5, 4), 0.25, dtype=torch.float64)
    with pytest.raises(ig.NumericsError):
        fine(torch.zeros(3, 4, dtype=torch.float64))
    cast = copy.deepcopy(fine)
    cast["second"].subnets[1].float()
    with pytest.raises(ig.GraphError, match="node 'second'"):
        ig.export(cast, "forward")
    result = ig.export(fine, "inverse").module()(half)
    assert torch.allclose(result[0], fine.inverse(half)[0], rtol=1e-12, atol=1e-12)


class Counting(nn.Module):
    """A subnet with a buffer that counts its calls, and with random numbers."""

    def __init__(self, sizes: Any, out: int) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.rand(x.shape[0], self.out, dtype=x.dtype)


def test_the_first_call_changes_nothing() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Additive(), "subnet": Counting}))
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    state = torch.get_rng_state()
    ig.export(graph, "forward", example=rows(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_a_compiled_graph_is_not_compiled_for_an_export() -> None:
    seen: list[object] = []

    def backend(module: Any, example: Any) -> Any:
        seen.append(module)
        return module.forward

    graph = coupled().compile(backend=backend)
    program = ig.export(graph, "forward").module()
    assert seen == []
    x, c = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(program(x, c)[0], copy.deepcopy(graph)(x, c)[0], rtol=1e-12, atol=1e-12)


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports that begin to trace fail."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the path is looked at first")

    monkeypatch.setattr(torch.export, "export", refuse)


@pytest.mark.usefixtures("untraced")
def test_a_path_is_looked_at_before_the_export(tmp_path: Path) -> None:
    graph = coupled()
    (tmp_path / "file").touch()
    for export, name in ((ig.export_onnx, "a.onnx"), (ig.export_aoti, "a.pt2")):
        with pytest.raises(ig.GraphError, match="is not a folder: create it first; nothing was written"):
            export(graph, tmp_path / "none" / name)
        with pytest.raises(ig.InvgraphError, match="nothing was written"):
            export(graph, tmp_path / "file" / name)
        folder = tmp_path / f"folder_{name}"
        folder.mkdir()
        with pytest.raises(ig.InvgraphError, match="nothing was written"):
            export(graph, folder)
    for name in ("q.bin", "q", "q.PT2", "pt2"):
        with pytest.raises(
            ig.GraphError, match=rf"path='.*{name}'\n.*a name that ends in .pt2, such as '{name.split('.')[0]}.pt2'"
        ):
            ig.export_aoti(graph, tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.usefixtures("untraced")
def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ig.GraphError, match="no permission to write to the folder"):
        ig.export_onnx(coupled(), tmp_path / "a.onnx")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_file_that_cannot_be_written_after_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(ig.GraphError, match=r"a.onnx'\n.*could not be written: No space left"):
        ig.export_onnx(one(ig.Permute), tmp_path / "a.onnx", "forward")
