"""Checkpoints: what is stored comes back bit for bit, into the graph it was made from and no other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case
from safetensors import safe_open
from torch import nn
from training import Run, digest, make_flow

import invgraph as ig
from invgraph.checkpoint.fingerprint import upgrade_holders


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_layer_comes_back_bit_for_bit(case: Case, path: Path) -> None:
    saved, other = case.build(torch.float32), case.build(torch.float32, seed=7)
    ig.save(path, saved)
    ig.load(path, other)
    assert digest(saved) == digest(other)
    xs, cs = case.data(saved, torch.float32)
    for a, b in zip(saved.eval()(xs, cs)[0], other.eval()(xs, cs)[0], strict=True):
        assert torch.equal(a, b)


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    run = Run()
    run.step()
    run.save(tmp_path / "a")
    run.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_an_ordinary_safetensors_file(path: Path) -> None:
    from safetensors.torch import load_file

    flow = make_flow()
    ig.save(path, flow)
    tensors = load_file(path)
    assert {f"model.{name}" for name in flow.state_dict()} == set(tensors)


def test_metadata_come_back_without_a_graph(path: Path) -> None:
    metadata = {"preset": "quick", "noise": 0.15, "classes": [1, 2], "nested": {"a": None}, "words": 'ü "quotes" \\'}
    ig.save(path, make_flow(), metadata=metadata)
    found = ig.load(path)
    assert found.metadata == metadata
    assert found.training is None
    assert found.version == ig.__version__
    assert found.torch_version == torch.__version__
    assert "Affine(clamp=1.0" in found.architecture["model.layers.coupling_0"]


def test_actnorm_is_ready_after_loading(path: Path) -> None:
    run = Run()
    run.save(path)
    fresh = make_flow()
    ig.load(path, fresh)
    assert torch.isfinite(fresh.log_prob(run.images, run.labels)).all()


def test_tied_parameters_and_views_are_stored(path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = make_flow().graph
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.register_buffer("view", torch.arange(12.0).view(3, 4).t())
            self.register_buffer("spread", torch.ones(1).expand(5))
            self.register_buffer("none", torch.empty(0, 3, dtype=torch.int16))
            self.register_buffer("one", torch.tensor(True))

    saved, other = Tied(), Tied()
    other.one.fill_(False)
    ig.save(path, saved)
    with torch.no_grad():
        other.spread = other.spread.clone()
    ig.load(path, other)
    assert digest(saved) == digest(other)
    assert other.b.weight is other.a.weight


class Extra(nn.Module):
    """A network with state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        if state == "refuse":
            raise ValueError("no such state\nand more")
        self.extra = state


@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_differ_do_not_load_into_one_that_is_shared(path: Path, strict: bool) -> None:
    def build(*readers: nn.Linear) -> nn.ModuleList:
        return nn.ModuleList(nn.Sequential(reader, nn.Linear(4, 2)) for reader in readers)

    shared, own = nn.Linear(2, 4), build(nn.Linear(2, 4), nn.Linear(2, 4))
    tied = build(shared, shared)
    before = copy.deepcopy(tied.state_dict())
    ig.save(path, own)
    with pytest.raises(ig.CheckpointError, match=r"different values of 0.0.weight and 1.0.weight\n.*one tensor"):
        ig.load(path, tied, strict=strict)
    assert all(torch.equal(value, before[name]) for name, value in tied.state_dict().items())
    with torch.no_grad():
        shared.weight[0, 0] = torch.nan
    ig.save(path, tied)
    for other in (own, build(*[nn.Linear(2, 4)] * 2)):
        ig.load(path, other, strict=strict)
        torch.testing.assert_close(other.state_dict(), tied.state_dict(), equal_nan=True, rtol=0, atol=0)


def test_extra_state_comes_back(path: Path) -> None:
    saved, other = nn.ModuleList([nn.Linear(2, 2), Extra()]), nn.ModuleList([nn.Linear(2, 2), Extra()])
    saved[1].extra = {"counts": (1, 2), 3: torch.arange(3)}
    ig.save(path, saved)
    ig.load(path, other)
    assert other[1].extra["counts"] == (1, 2)
    assert torch.equal(other[1].extra[3], torch.arange(3))


def test_a_layer_that_refuses_its_state_leaves_the_graph_as_it_was(path: Path) -> None:
    saved, other = nn.ModuleList([nn.Linear(2, 2), Extra()]), nn.ModuleList([nn.Linear(2, 2), Extra()])
    saved[1].extra, other[1].extra = "refuse", "mine"
    ig.save(path, saved)
    before = other[0].weight.clone()
    with pytest.raises(ig.CheckpointError, match=r"no such state\n  a layer refused its state: nothing was loaded"):
        ig.load(path, other)
    assert torch.equal(before, other[0].weight)
    assert other[1].extra == "mine"


class Silent(Extra):
    """Refuses every state without a word."""

    def set_extra_state(self, state: Any) -> None:
        if state != self.extra:
            raise ValueError


def test_a_layer_that_refuses_without_a_message_is_named(path: Path) -> None:
    saved, other = Silent(), Silent()
    saved.extra, other.extra = "theirs", "mine"
    ig.save(path, saved)
    with pytest.raises(ig.CheckpointError, match="ValueError\n  a layer refused its state: nothing was loaded"):
        ig.load(path, other)
    assert other.extra == "mine"


# Resumed runs


PLAIN = nn.Linear(1, 1)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(path: Path) -> None:
    whole, first = Run(), None
    losses = [whole.step() for _ in range(40)]
    first = Run()
    for _ in range(20):
        first.step()
    first.save(path)
    resumed = Run(seed=5)
    resumed.load(path)
    assert [resumed.step() for _ in range(20)] == losses[20:]
    assert resumed.digest() == whole.digest()


# Other graphs


def declared(change: str) -> ig.Graph:
    """Two inputs and a graph of several nodes, with one thing changed."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    rebalance = 0.25 if change == "argument" else 0.5
    y = ig.InputNode(2, 2, name="y")
    kind = nn.Tanh if change == "subnet" else nn.ReLU
    args = {
        "transform": ig.Affine(clamp=2.0 if change == "clamp" else 1.0),
        "subnet": lambda a, b: (
            nn.Sequential(nn.Linear(a, 9 if change == "width" else 5), kind(), nn.Linear(5, b))
            if change != "width"
            else nn.Sequential(nn.Linear(a, 9), kind(), nn.Linear(9, b))
        ),
    }
    h = ig.Node(x, ig.Orthogonal if change == "class" else ig.Permute, {"seed": 1}, name="mix")
    if change == "more":
        h = ig.Node(h, ig.ActNorm, name="norm")
    h = ig.Node(h, ig.Coupling, args, conditions=c, name="renamed" if change == "name" else "block")
    w = ig.Node(ig.Node(y, ig.Haar, {"rebalance": rebalance}, name="haar"), ig.Flatten, name="flat")
    if change == "wiring":
        h, w = (ig.Node(h, ig.Flatten, name="a"), ig.Node(w, ig.Flatten, name="b"))
    elif change == "no change":
        pass
    inner = ig.InputNode(4, name="z")
    seed = {"order": (3, 1, 2, 0)}
    nested = ig.Graph(inner, ig.Node(inner, ig.Permute if change != "nested" else ig.Orthogonal,
                                     seed if change != "nested" else {}, name="turn"))  # fmt: skip
    h = ig.Node(h, nested, name="nested")
    outputs = [w, h] if change == "order of outputs" else [h, w]
    return ig.Graph([x, y], outputs, c)


DIFFERENCES = {
    "argument": ("- node 'haar': Haar((2, 2) -> (4, 1), rebalance=0.5", "+ node 'haar': Haar((2, 2) -> (4, 1), "
                 "rebalance=0.25", "pass strict=False: the tensors agree"),
    "clamp": ("- node 'block': Coupling((4,) -> (4,) | (3,), Affine(clamp=1.0", "+ node 'block': Coupling(",
              "Affine(clamp=2.0", "the tensors agree"),
    "subnet": ("- node 'block'.subnets.0.0.module.1: ReLU()", "+ node 'block'.subnets.0.0.module.1: Tanh()"),
    "width": ("- node 'block'.subnets.0.0.module.0: Linear(in_features=5, out_features=5, bias=True)",
              "+ node 'block'.subnets.0.0.module.0: Linear(in_features=5, out_features=9, bias=True)"),
    "class": ("- node 'mix': Permute((4,) -> (4,)) of x", "+ node 'mix': Orthogonal((4,) -> (4,)) of x"),
    "more": ("+ node 'norm': ActNorm((4,) -> (4,)) of mix", "- node 'block': Coupling(", "of mix | c", "of norm | c"),
    "name": ("- node 'block': Coupling(", "+ node 'renamed': Coupling(", "- node 'nested': Graph(z (4,) -> turn (4,)) "
             "of block", "+ node 'nested': Graph(z (4,) -> turn (4,)) of renamed"),
    "wiring": ("+ node 'a': Flatten((4,) -> (4,)) of block", "of a", "+ the whole: Graph([x (4,), y (2, 2)] -> "
               "[nested (4,), b (4,)] | c (3,))"),
    "nested": ("- node 'nested'.layers.turn: Permute", "+ node 'nested'.layers.turn: Orthogonal"),
    "order of outputs": ("- the whole: Graph([x (4,), y (2, 2)] -> [nested (4,), flat (4,)] | c (3,))",
                         "+ the whole: Graph([x (4,), y (2, 2)] -> [flat (4,), nested (4,)] | c (3,))"),
}  # fmt: skip


@pytest.mark.parametrize("change", DIFFERENCES)
def test_another_graph_is_refused_with_every_difference(change: str, path: Path) -> None:
    ig.save(path, declared("no change"))
    other = declared(change)
    before = digest(other)
    with pytest.raises(ig.CheckpointError) as caught:
        ig.load(path, other)
    for words in (*DIFFERENCES[change], "a checkpoint of another graph", "(-: in the file, +: here)", str(path)):
        assert words in str(caught.value), str(caught.value)
    assert digest(other) == before
    ig.load(path, declared("no change"))


def test_the_order_of_declaration_and_the_device_do_not_matter(path: Path) -> None:
    def parts(flipped: bool) -> ig.Graph:
        x, y = ig.InputNode(4, name="x"), ig.InputNode(4, name="y")
        made = {}
        for name, source in reversed((("a", x), ("b", y))) if flipped else (("a", x), ("b", y)):
            made[name] = ig.Node(source, ig.Permute, {"seed": 3}, name=name)
        return ig.Graph([x, y], [made["a"], made["b"]])

    ig.save(path, parts(False))
    ig.load(path, parts(True))


def test_nothing_is_cast(path: Path) -> None:
    ig.save(path, make_flow())
    with pytest.raises(ig.CheckpointError, match=r"- node 'embedding'.weight: \(4, 10\) float32\n"
                       r"    \+ node 'embedding'.weight: \(4, 10\) float64"):  # fmt: skip
        ig.load(path, make_flow().double())


def test_a_long_difference_is_cut(path: Path) -> None:
    ig.save(path, make_flow(blocks=60, hidden=2))
    with pytest.raises(ig.CheckpointError, match=r"\n    \.\.\. and \d+ more$") as caught:
        ig.load(path, make_flow(blocks=60, hidden=2, clamp=2.0))
    assert len(str(caught.value).splitlines()) == 24


def test_without_strict_the_tensors_alone_must_agree(path: Path) -> None:
    saved = declared("no change")
    ig.save(path, saved)
    other = declared("argument")
    ig.load(path, other, strict=False)
    assert digest(other) == digest(saved)
    assert any("renamed" in line for line in ig.load(path, declared("name"), strict=False).skipped)


def nested_in_the_first_format() -> ig.Graph:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    a, d = ig.InputNode(2, name="a"), ig.ConditionNode(3, name="d")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}
    inner = ig.Graph(a, ig.Node(a, ig.Coupling, args, conditions=d, name="inner"), d)
    left, right = ig.Node(x, ig.Split, {"sizes": (2, 2)}, name="split")
    nested = ig.Node(left, inner, conditions=c, name="nested")
    return ig.Graph(x, ig.Node((nested, right), ig.Concat, name="concat"), c)


def test_a_nested_graph_of_an_early_checkpoint_loads() -> None:
    """A nested graph was held in a wrapper, so that its tensors had ``module.`` in their names."""
    file = Path(__file__).parent / "data" / "nested_in_the_first_format.safetensors"
    graph = nested_in_the_first_format()
    expected = torch.tensor(ig.load(file, graph).metadata["z"])
    assert torch.equal(graph(torch.ones(1, 4), torch.ones(1, 3))[0], expected)
    with safe_open(file, "pt") as stored:
        state = {name.removeprefix("model."): stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    assert any(".module." in name for name in state)
    by_torch = nested_in_the_first_format()
    by_torch.load_state_dict(state)
    assert torch.equal(by_torch(torch.ones(1, 4), torch.ones(1, 3))[0], expected)


@pytest.mark.parametrize("strict", [True, False])
def test_a_flow_and_its_graph_load_each_others_checkpoints(path: Path, strict: bool) -> None:
    flow, other = make_flow(), make_flow()
    ig.testing.randomize(flow)
    ig.save(path, flow)
    assert ig.load(path, other.graph, strict=strict).skipped == ()
    assert digest(other) == digest(flow)
    ig.save(path, flow.graph)
    for target in (make_flow(), ig.reversible(make_flow().graph), ig.Flow(ig.reversible(make_flow().graph))):
        assert ig.load(path, target, strict=strict).skipped == ()
        pairs = zip(target.state_dict().values(), flow.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    with pytest.raises(ig.CheckpointError, match="clamp=2"):  # layers are compared as ever
        ig.load(path, make_flow(clamp=2.0))


class Parallel(nn.Module):
    """Stands for DDP, which needs processes: the name of the class and of its child are what a checkpoint has."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


Parallel.__name__ = "DistributedDataParallel"


class Model(nn.Module):
    """A flow with a parameter beside it."""

    def __init__(self, flow: ig.Flow) -> None:
        super().__init__()
        self.flow, self.scale = flow, nn.Parameter(torch.ones(3))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # by torch.compile itself
@pytest.mark.parametrize("strict", [True, False])
def test_what_only_runs_a_graph_makes_no_difference(path: Path, strict: bool) -> None:
    def models() -> list[Any]:
        plain, runs = Model(make_flow()), Model(ig.Flow(ig.reversible(make_flow().graph)))
        compiled: Any = torch.compile(plain)
        return [plain, runs, compiled, Parallel(compiled), torch.compile(Parallel(runs)), nn.DataParallel(plain)]

    def values(model: Any) -> list[Any]:
        return list(model.state_dict().values())

    for saved in models():
        ig.testing.randomize(saved)
        nn.init.normal_(next(tensor for name, tensor in saved.named_parameters() if name.endswith("scale")))
        ig.save(path, saved)
        for target in models():
            assert ig.load(path, target, strict=strict).skipped == ()
            assert all(torch.equal(*pair) for pair in zip(values(target), values(saved), strict=True))
        flow: Any = next(part for part in saved.modules() if isinstance(part, ig.Flow))
        pairs: Any = (flow, torch.compile(make_flow().graph)), (torch.compile(flow.graph), make_flow())
        for whole, part in pairs:
            ig.save(path, whole)
            assert ig.load(path, part, strict=strict).skipped == ()
            assert all(torch.equal(*pair) for pair in zip(values(part), values(whole), strict=True))
    with pytest.raises(ig.CheckpointError, match="clamp=2"):
        ig.load(path, Parallel(make_flow(clamp=2.0)))


def test_a_part_of_a_checkpoint_loads_and_the_rest_is_listed(path: Path) -> None:
    small, large = make_flow(blocks=1), make_flow(blocks=2)
    ig.testing.randomize(small)
    ig.save(path, small)
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    with pytest.raises(ig.CheckpointError, match="strict=False"):
        ig.load(path, large)
    skipped = ig.load(path, large, strict=False).skipped
    state = small.state_dict()
    assert len(skipped) == len(set(before) ^ set(state)) > 0
    assert all(line.startswith("+ node ") for line in skipped)
    for name, tensor in large.state_dict().items():
        assert torch.equal(tensor, state.get(name, before[name])), name
    with pytest.raises(ig.CheckpointError, match="none of its tensors fits"):
        ig.load(path, nn.Linear(2, 2), strict=False)


def test_a_checkpoint_of_a_flow_whose_child_was_called_graph_loads(path: Path) -> None:
    """So it was until torch's exporters needed the name; the model that ships with the examples is older."""
    flow = make_flow()
    old = {f"graph.{name.removeprefix('model.')}": tensor for name, tensor in flow.state_dict().items()}
    other = make_flow()
    ig.testing.randomize(other)
    other.load_state_dict(old)
    assert digest(other) == digest(flow)
    architecture = {"": "Flow()", "graph": "Reversible()", "graph.graph": "Graph()", "graph.graph.layers.graph": "A()"}
    names = [upgrade_holders(name, architecture) for name in architecture]
    assert names == ["", "model", "model.model", "model.model.layers.graph"]


# Arguments


@pytest.mark.parametrize("metadata", [{"a": object()}, {(1, 2): 3}, {"a": {1, 2}}])
def test_metadata_are_what_json_says(path: Path, metadata: Any) -> None:
    with pytest.raises(ig.CheckpointError, match="metadata must be JSON"):
        ig.save(path, PLAIN, metadata=metadata)


def test_arguments_of_the_wrong_type(path: Path) -> None:
    for wrong in (None, 3, b"bytes", object()):
        with pytest.raises(ig.ArgumentError, match="a path must be a str"):
            ig.save(wrong, PLAIN)  # type: ignore[arg-type]
        with pytest.raises(ig.ArgumentError, match="a path must be a str"):
            ig.load(wrong, PLAIN)  # type: ignore[arg-type]
    with pytest.raises(ig.ArgumentError, match=r"path: Linear\n.*comes first: save\(path, graph\)"):
        ig.save(PLAIN, path)  # type: ignore[arg-type]
    for name in ("", "nul\0"):
        with pytest.raises(ig.CheckpointError, match="not a valid file name"):
            ig.save(name, PLAIN)
    x = ig.InputNode(2)
    for graph in (x, {}, PLAIN.state_dict()):
        with pytest.raises(ig.ArgumentError, match="expected a Graph, a Flow, or a module that holds one"):
            ig.save(path, graph)  # type: ignore[arg-type]
    with pytest.raises(ig.ArgumentError, match="metadata must be a mapping"):
        ig.save(path, PLAIN, metadata=[1])  # type: ignore[arg-type]


def test_a_flag_that_was_saved_as_a_boolean_is_loaded(tmp_path: Path) -> None:
    run = Run()
    run.flow.graph["norm"].initialized = run.flow.graph["norm"].initialized.bool()
    ig.save(tmp_path / "old", run.flow)
    flow = make_flow()
    ig.load(tmp_path / "old", flow)
    assert flow.graph["norm"].initialized.dtype == torch.uint8
    assert torch.equal(flow.log_prob(run.images, run.labels), run.flow.log_prob(run.images, run.labels))


def test_each_layer_is_shown_its_own_tensors_alone(path: Path) -> None:
    """A graph of thousands of nodes would take minutes to load, had each to look through the tensors of all."""
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.chain(x, *[(ig.Elementwise, {"transform": ig.Affine()})] * 20))
    ig.save(path, graph)
    seen: list[int] = []
    for layer in graph.layers.values():
        layer.register_load_state_dict_pre_hook(lambda module, state, *rest: seen.append(len(state)))
    ig.load(path, graph)
    assert seen == [1] * 20


def test_other_dtypes_are_not_loaded_in_part(tmp_path: Path) -> None:
    def build() -> ig.Graph:
        x = ig.InputNode(4, name="x")
        args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
        return ig.testing.randomize(ig.Graph(x, ig.Node(ig.Node(x, ig.Permute, name="p"), ig.Coupling, args, name="c")))

    ig.save(tmp_path / "g", build())
    other = build().double()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for strict, advice in ((True, "convert the graph with"), (False, "only dtypes differ: convert")):
        with pytest.raises(ig.CheckpointError, match=advice):
            ig.load(tmp_path / "g", other, strict=strict)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_without_strict_a_module_may_have_extra_state_that_the_file_lacks(path: Path) -> None:
    class Counted(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"count": 3}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError("there is none in the file")

    plain, counted = nn.Linear(2, 2), Counted(2, 2)
    ig.save(path, plain)
    with pytest.raises(ig.CheckpointError, match="the tensors agree"):
        ig.load(path, counted)
    assert ig.load(path, counted, strict=False).skipped == ()
    assert torch.equal(counted.weight, plain.weight)


def test_a_nested_graph_and_its_runner_load_each_others_files(path: Path) -> None:
    def build(wrap: Any, source: int = 0) -> ig.Graph:
        q, x, c = (
            ig.InputNode(2, name="q"),
            [ig.InputNode(2, name=name) for name in "xy"],
            ig.ConditionNode(1, name="c"),
        )
        args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(8)}
        d = ig.ConditionNode(1, name="d")
        inner = wrap(ig.Graph(q, ig.Node(q, ig.Coupling, args, conditions=d), d))
        return ig.testing.randomize(ig.Graph(x, [ig.Node(x[source], inner, name="in", conditions=c), x[1 - source]], c))

    def plain(graph: ig.Graph) -> Any:
        return graph

    data, c = (torch.randn(3, 2), torch.randn(3, 2)), torch.randn(3, 1)
    for first, second in ((ig.reversible, plain), (plain, ig.reversible), (ig.reversible, ig.reversible)):
        saved, other = build(first), build(second)
        ig.save(path, saved)
        ig.load(path, other)
        for a, b in zip(saved(data, c)[0], other(data, c)[0], strict=True):
            assert torch.equal(a, b)
        with pytest.raises(ig.CheckpointError, match=r"- node 'in': Graph\(.*\) of x \| c\n.*\+ .*\) of y \| c"):
            ig.load(path, build(second, 1))
    ig.save(path, build(plain))
    graph = build(ig.reversible)
    graph.set_submodule("layers.in", torch.compile(graph["in"], backend="eager"))
    ig.load(path, graph)
