"""Habits of people with any module, on every family of layers in every runner: see tests/support/habit_table."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from habit_table import GRAPHS, HABITS, Cell
from habit_table.page import cells, rst
from places import ROOT
from torch import Tensor, nn

import invgraph as ig

pytestmark = [
    # A hook on all modules is told that the inputs of some need no gradient.
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
    # The compiler looks at every attribute of a tensor that it is given.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    # Old hooks put the weight that they compute on the module, which torch.export takes for a buffer.
    pytest.mark.filterwarnings("ignore:The tensor attribute"),
    # Torch itself does what these warn of.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check:FutureWarning"),
]

SECONDS = {"spawn", "torch.compile of the flow", "torch.compile of the loss", "torch.compile of the training step",
           "torch.export of the graph", "torch.onnx.export of the graph"}  # fmt: skip
"""Habits of which one cell takes seconds."""


def require_packages(name: str) -> None:
    for package in HABITS[name].needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def in_turn() -> list[Any]:
    """For each habit one graph, runner and direction; another one for the next."""
    chosen = []
    for place, habit in enumerate(HABITS.values()):
        found = list(_quick(habit))
        name, runner, inverse = found[(place * 7) % len(found)]
        marks = pytest.mark.slow if habit.name in SECONDS else ()
        chosen.append(pytest.param(habit.name, name, runner, inverse, id=f"{habit.name}-{name}-{runner}", marks=marks))
    return chosen


def _quick(habit: Any) -> Any:
    for name in GRAPHS:
        for runner in ("plain", "bound", "reversible"):
            for inverse in (False, True):
                if habit.applies(name, runner, inverse):
                    yield name, runner, inverse


@pytest.mark.parametrize(("habit", "name", "runner", "inverse"), in_turn())
def test_each_habit_on_one_graph(habit: str, name: str, runner: str, inverse: bool) -> None:
    require_packages(habit)
    HABITS[habit].try_on(Cell(name, runner, inverse))


def on_every_graph() -> Iterator[Any]:
    """Each habit on each graph; the slow suite takes one graph in four, by turns, and one if that takes seconds."""
    for place, habit in enumerate(HABITS):
        for column, name in enumerate(GRAPHS):
            slow = column == place % len(GRAPHS) if habit in SECONDS else (place + column) % 4 == 0
            marks = pytest.mark.slow if slow else pytest.mark.nightly
            yield pytest.param(habit, name, id=f"{habit}-{name}", marks=marks)


@pytest.mark.parametrize(("habit", "name"), list(on_every_graph()))
def test_every_habit_on_every_graph(habit: str, name: str) -> None:
    require_packages(habit)
    for cell in cells(HABITS[habit], graphs=[name], runners=("plain", "bound", "reversible")):
        HABITS[habit].try_on(cell)


def in_compiled_and_exported_graphs(one_in: int = 4) -> Iterator[Any]:
    """One graph in four for each habit, which takes seconds; the slow suite takes one for each ninth habit."""
    for place, habit in enumerate(HABITS):
        for column, name in enumerate(GRAPHS):
            if (place + column) % one_in == 0:
                slow = column < one_in and place % 9 == 0
                marks = pytest.mark.slow if slow else pytest.mark.nightly
                yield pytest.param(habit, name, id=f"{habit}-{name}", marks=marks)


@pytest.mark.parametrize(("habit", "name"), list(in_compiled_and_exported_graphs()))
def test_every_habit_in_compiled_and_exported_graphs(habit: str, name: str) -> None:
    require_packages(habit)
    for cell in cells(HABITS[habit], graphs=[name], runners=("compiled", "exported"), every=4):
        HABITS[habit].try_on(cell)


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(HABITS) >= 60
    assert len(GRAPHS) >= 12
    from habit_table.graphs import make

    layers = {type(part) for name in GRAPHS for part in make(name).modules()}
    public = (getattr(ig, name) for name in dir(ig))
    families = {c for c in public if isinstance(c, type) and issubclass(c, ig.Invertible) and c is not ig.Invertible}
    assert not families - layers, "a layer stands in no graph of the table"


def test_the_page_shows_the_table() -> None:
    page = (ROOT / "docs" / "habits.rst").read_text()
    assert rst() in page, "python -m tests.habits --rst prints what the page should show"


# What broke when the table was first tried, each in its smallest form.


def test_hooks_on_layers_see_what_the_page_says() -> None:
    x = ig.InputNode(4, name="x")
    a = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}, name="a")
    graph = ig.Graph(x, ig.Node(a, ig.Permute, name="p"))
    called: set[str] = set()
    shapes: dict[str, list[Any]] = {}
    for name, module in graph.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        module.register_full_backward_hook(
            lambda *args, name=name: shapes.update({name: [getattr(grad, "shape", None) for grad in args[2]]})
        )
    z, log_det = graph(torch.randn(3, 4, requires_grad=True))
    assert {"", "layers.a", "layers.p", "layers.a.subnets.0.0"} <= called
    (z.sum() + log_det.sum()).backward()
    assert shapes[""] == [(3, 4), (3,)]
    assert shapes["layers.a"] == [None, (3,)]
    assert "layers.p" not in shapes
    called.clear()
    graph.inverse(torch.randn(3, 4))
    assert "layers.a.subnets.0.0" in called
    assert not called & {"", "layers.a", "layers.p"}


@pytest.mark.parametrize("runner", ["reversible", "compiled"])
def test_a_graph_gives_per_sample_gradients(runner: str) -> None:
    HABITS["per-sample gradients"].try_on(Cell("couplings", runner))


@pytest.mark.parametrize("runner", ["plain", "bound", "compiled"])
@pytest.mark.parametrize("habit", ["a part cast", "a part moved"])
def test_a_part_of_another_dtype_or_device_is_named(habit: str, runner: str) -> None:
    HABITS[habit].try_on(Cell("linear", runner))


def test_compiled_code_does_not_compute_with_a_part_of_another_dtype() -> None:
    HABITS["a part cast"].try_on(Cell("masked", "compiled"))


def test_a_mixture_runs_under_autocast() -> None:
    for inverse in (False, True):
        HABITS["autocast"].try_on(Cell("mixture", "plain", inverse))


@pytest.mark.parametrize("name", ["image", "masked", "autoregressive"])
def test_buffers_can_be_averaged(name: str) -> None:
    HABITS["averaged weights and buffers"].try_on(Cell(name))


def test_a_continuous_flow_names_what_torch_func_cannot_pass() -> None:
    HABITS["full backward hook"].try_on(Cell("continuous"))


def test_a_continuous_flow_finds_its_trace_in_a_checkpointed_reversible_graph() -> None:
    HABITS["activation checkpointing"].try_on(Cell("continuous", "reversible"))


def test_a_compiled_continuous_flow_refuses_checkpointing() -> None:
    HABITS["activation checkpointing"].try_on(Cell("continuous", "compiled"))


def test_a_continuous_flow_is_refused_by_torch_export() -> None:
    HABITS["torch.export of the graph"].try_on(Cell("continuous"))


@pytest.mark.slow
def test_a_compiled_continuous_flow_runs_in_inference_mode() -> None:
    HABITS["inference_mode, then training"].try_on(Cell("continuous", "compiled"))


@pytest.mark.slow
@pytest.mark.parametrize("inverse", [False, True])
def test_a_graph_compiles_under_a_default_device(inverse: bool) -> None:
    HABITS["another default device while building"].try_on(Cell("linear", "compiled", inverse))


def test_anomaly_mode_runs_the_plain_code() -> None:
    HABITS["anomaly mode"].try_on(Cell("continuous", "compiled", inverse=True))


@pytest.mark.parametrize(
    ("habit", "runner"),
    [
        ("several gradients at once", "reversible"),
        ("weights from a hypernetwork", "reversible"),
        ("layers in checkpoint wrappers", "reversible"),
        ("FSDP2", "bound"),
        ("FSDP2", "reversible"),
        ("FSDP", "reversible"),
        ("selective checkpointing", "plain"),
    ],
)
def test_wrappers_shards_and_weights_that_are_no_parameters(habit: str, runner: str) -> None:
    HABITS[habit].try_on(Cell("couplings", runner))


def test_a_tensor_that_a_subnet_keeps_is_let_be() -> None:
    """Results of an earlier call, such as attention, need a gradient too, but nothing reads them."""

    class Keeping(nn.Linear):
        last: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.last = super().forward(x)
            return self.last

    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": Keeping}, name="keeping"))
    runner, data = ig.reversible(graph), torch.randn(3, 4)
    graph(data)
    runner(data)[1].sum().backward()
    graph["keeping"].subnets[0][0].module.extra = torch.ones(2, requires_grad=True)  # type: ignore[index, union-attr]
    with pytest.raises(ig.GraphError, match=r"keeping.subnets.0.0.module.extra, which is not a parameter"):
        runner(data)


def test_torchscript_is_refused_by_name() -> None:
    HABITS["torch.jit.script"].try_on(Cell("couplings"))
