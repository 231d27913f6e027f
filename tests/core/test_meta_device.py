"""Modules built on the meta device, or moved there: once their state is loaded, they compute the right thing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case
from measures import equal
from torch import nn

import invgraph as ig


def each_class() -> list[Any]:
    """Return the cases as parameters: the fast suite runs one of each class."""
    seen: set[object] = set()
    parameters = []
    for case in CASES:
        parameters.append(pytest.param(case, id=case.id, marks=pytest.mark.slow if case.cls in seen else ()))
        seen.add(case.cls)
    return parameters


def on_meta(case: Case) -> ig.Invertible:
    """Return the module of a case, built on the meta device."""
    with torch.device("meta"):
        return case.make() if case.make else case.cls(case.in_shapes, case.cond_shapes, **case.args)


def assert_same(case: Case, module: ig.Invertible, original: ig.Invertible) -> None:
    module.train(original.training)
    tuples = ig.Graph not in (type(module), type(original))
    for inverse in (False, True):
        xs, cs = (case.latents if inverse else case.data)(original, torch.float32)
        if not tuples:
            xs, cs = (ports.pack(ts) for ports, ts in ((original._inputs(), xs), (original._conditions(), cs)))
        call, expected = (m.inverse if inverse else m for m in (module, original))
        results = [direction(xs, cs) for direction in (call, expected)]
        assert equal(*((values if isinstance(values, tuple) else (values,), log) for values, log in results))


def original_of(case: Case) -> ig.Invertible:
    built = case.build(torch.float32)
    return built.module if type(built).__name__ == "Flat" else built


@pytest.mark.parametrize("case", each_class())
@pytest.mark.parametrize("form", ["to_empty", "assign"])
def test_a_module_built_on_the_meta_device_loads_its_state(case: Case, form: str) -> None:
    original = original_of(case)
    module = on_meta(case)
    if form == "to_empty":
        module.to_empty(device="cpu")
        fill_with_garbage(module)
        module.to_empty(device="cpu")
    module.load_state_dict(original.state_dict(), assign=form == "assign")
    assert not [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert_same(case, module, original)


def fill_with_garbage(module: nn.Module) -> None:
    """Fill the memory with what it may hold, so that a test sees what is never written."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(1)


@pytest.mark.slow
@pytest.mark.parametrize("case", each_class())
def test_a_module_moved_to_the_meta_device_and_back_loads_its_state(case: Case) -> None:
    original = original_of(case)
    module = original_of(case).to("meta").to_empty(device="cpu")
    fill_with_garbage(module)
    module.to_empty(device="cpu")
    module.load_state_dict(original.state_dict())
    assert_same(case, module, original)


def test_every_buffer_that_is_not_saved_is_a_constant() -> None:
    """A buffer that is neither saved nor made again would be lost."""
    for case in CASES:
        module = original_of(case)
        for path, part in module.named_modules():
            lost = part._non_persistent_buffers_set - set(getattr(part, "_constants", dict)())
            if not isinstance(part, ig.FixedLinear):  # what it derives from its matrix is computed on loading
                assert not lost, f"{path} of {case.id}: {lost}"


@pytest.mark.parametrize("empty", [True, False])
def test_a_checkpoint_loads_into_a_graph_built_on_the_meta_device(tmp_path: Path, empty: bool) -> None:
    def build() -> ig.Graph:
        x = ig.InputNode(6, name="x")
        h = ig.Node(x, ig.Autoregressive, {"transform": ig.Affine(), "hidden": 8}, name="ar")
        h = ig.Node(h, ig.MaskedCoupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}, name="masked")
        return ig.Graph(x, ig.Node(h, ig.DCT, name="dct"))

    graph = ig.testing.randomize(build())
    ig.save(tmp_path / "g", graph)
    with torch.device("meta"):
        other = build()
    if empty:
        other.to_empty(device="cpu")
    ig.load(tmp_path / "g", other)
    x = torch.randn(4, 6)
    for twin in (other, pickle.loads(pickle.dumps(other))):
        assert torch.equal(twin(x)[0], graph(x)[0])
        assert torch.equal(twin(x)[1], graph(x)[1])


@pytest.mark.parametrize("fails", [False, True])
def test_tensors_of_several_names_stay_one_when_a_state_is_assigned(tmp_path: Path, fails: bool) -> None:
    shared: dict[str, nn.Parameter] = {}

    class Net(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.a, self.m, self.b = nn.Linear(inputs, 8), nn.Linear(8, 8), nn.Linear(8, outputs)
            self.m.weight = shared.setdefault("w", self.m.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(self.m(self.a(x)))
            return y

    def build() -> ig.Graph:
        shared.clear()
        x = ig.InputNode(2, name="x")
        return ig.Graph(x, ig.chain(x, *[(ig.Coupling, {"transform": ig.Affine(clamp=1.0), "subnet": Net})] * 2))

    graph = build()
    ig.save(tmp_path / "g", graph)
    with torch.device("meta"):
        other = build()
    names = [name for name, _ in other.named_parameters()]
    if fails:
        handle = other["coupling_1"].register_load_state_dict_post_hook(lambda *rest: 1 / 0)
        with pytest.raises((ig.CheckpointError, ZeroDivisionError)):
            ig.load(tmp_path / "g", other)
        handle.remove()
        assert [name for name, _ in other.named_parameters()] == names
    ig.load(tmp_path / "g", other)
    assert [name for name, _ in other.named_parameters()] == names
    x = torch.randn(4, 2)
    assert torch.equal(other(x)[0], graph(x)[0])


@pytest.mark.parametrize("kind", [ig.ActNorm, ig.Permute])
def test_start_values_are_not_taken_from_data_without_values(kind: type[ig.Invertible]) -> None:
    layer = kind((3,)).to("meta")
    x = ig.InputNode(3, name="x")
    graph = ig.Graph(x, ig.Node(x, kind, name="norm")).to("meta")
    for call in (lambda: layer.initialize((torch.empty(4, 3, device="meta"),)),
                 lambda: graph.initialize(torch.empty(4, 3, device="meta"))):  # fmt: skip
        with pytest.raises(ig.GraphError, match=r"meta device, which have no values\n.*on another device"):
            call()
