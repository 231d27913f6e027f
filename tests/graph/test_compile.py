"""Compiled graphs: no break, no recompilation over batch sizes, the results of eager."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from cases import Case, each_part, some_parts
from compiling import COMPILER, COMPILERS_WARN, assert_same_gradients, in_a_graph, negative, worst
from compiling import fresh as fresh
from places import ROOT
from small_graphs import build, deep_graph
from torch import Tensor, nn
from torch._dynamo.utils import counters

import invgraph as ig
import invgraph.graph.compiled
from invgraph.graph.compiled import EqualLayers, _safe
from invgraph.testing import randomize

pytestmark = COMPILERS_WARN


@pytest.mark.parametrize("case", each_part(one_in=8, slow_in=3))
def test_every_layer_compiles_in_both_directions(case: Case) -> None:
    graph = in_a_graph(case.shortened(), torch.float32)
    compiled = copy.deepcopy(graph).compile(backend="eager")
    with torch.no_grad():
        xs, cs = case.data(graph, torch.float32)
        assert worst(compiled(xs, cs), graph(xs, cs)) <= 5e-6
        ys, cs = case.latents(graph, torch.float32)
        assert worst(compiled.inverse(ys, cs), graph.inverse(ys, cs)) <= 5e-6
    assert not counters["graph_break"]


def train(graph: ig.Graph, batch: int, width: int = 8, inverse: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x, c = (torch.randn(batch, n, generator=generator, dtype=torch.float32) for n in (width, 3))
    z, log_det = graph.inverse(x, c) if inverse else graph(x, c)
    found = torch.autograd.grad(z.square().sum() - log_det.sum(), list(graph.parameters()))
    return [z.detach(), log_det.detach(), *found]


@pytest.mark.parametrize(
    ("backend", "inverse"),
    [("eager", False), *(pytest.param("aot_eager", side, marks=pytest.mark.slow) for side in (False, True))],
)
def test_five_batch_sizes_compile_twice_at_most(backend: str, inverse: bool) -> None:
    graph = build(lambda: deep_graph(2, width=4), torch.float32)
    compiled = copy.deepcopy(graph).compile(backend=backend)
    seen = []
    for batch in (16, 8, 5, 33, 64):
        for ours, theirs in zip(train(compiled, batch, 4, inverse), train(graph, batch, 4, inverse), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        seen.append(counters["stats"]["unique_graphs"])
    assert seen[1:] == [seen[1]] * 4, "a batch size after the second compiled again"
    assert not counters["graph_break"]


def test_a_dynamic_batch_compiles_once() -> None:
    compiled = build(lambda: deep_graph(2), torch.float32).compile(backend="eager", dynamic=True)
    for batch in (16, 8, 5, 33, 64):
        train(compiled, batch)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.skipif(torch.__version__.startswith("2.8."), reason="torch 2.8 compiles each coupling anew")
@pytest.mark.parametrize(
    ("input_needs_gradient", "regions"), [pytest.param(True, 1, marks=pytest.mark.slow), (False, 2)]
)
def test_equal_couplings_are_one_region_at_any_depth(
    input_needs_gradient: bool, regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        raise NotImplementedError("this backend only looks at graphs")

    monkeypatch.setattr(invgraph.graph.compiled, "_SAFE_BACKENDS", (keep,))
    for depth in (2, 3):
        torch._dynamo.reset()
        compiled = build(lambda depth=depth: deep_graph(depth), torch.float32).compile(backend=keep)  # type: ignore[misc]
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="only looks at graphs"):
            compiled(torch.randn(4, 8, requires_grad=input_needs_gradient), torch.randn(4, 3))
    # A first coupling whose input needs no gradient is a region of its own.
    assert [len([n for n, _ in graph.named_children() if "subgraph" in n]) for graph in graphs] == [regions] * 2


@pytest.mark.slow
@torch.no_grad()
def test_a_graph_may_hold_many_kinds_of_couplings() -> None:
    x = ig.InputNode(6, name="x")
    h: Any = x
    for k in range(10):
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(clamp=1.0 + k), "subnet": ig.nets.MLP(3 + k)})
    eager = ig.testing.randomize(ig.Graph(x, h))
    graph = copy.deepcopy(eager).compile(backend="eager")
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(graph(values)[0], eager(values)[0])
    assert torch.equal(graph.inverse(values)[0], eager.inverse(values)[0])


@pytest.mark.slow
@torch.no_grad()
def test_many_graphs_compile_in_one_process() -> None:
    """The compiler stops after eight compilations of one code object, here two, which graphs must not share."""
    for width in (3, 4, 5):
        x = ig.InputNode(width, name="x")
        eager = ig.testing.randomize(ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Affine()})))
        graph = copy.deepcopy(eager).compile(backend="eager")
        values = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
        with torch._dynamo.config.patch(recompile_limit=2):
            assert torch.equal(graph(values)[0], eager(values)[0])
            assert torch.equal(graph.inverse(values)[0], eager.inverse(values)[0])


@torch.no_grad()
def test_another_seed_compiles_nothing_anew() -> None:
    """The compiler stops after eight compilations; a script gives a new seed at every step."""
    x = ig.InputNode(3, name="x")
    args = {"hidden": 4, "log_det": "estimate", "fixed_noise": True}
    graph = ig.testing.randomize(ig.Graph(x, ig.Node(x, ig.Residual, args)))
    compiled = copy.deepcopy(graph).compile(backend="eager")
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    compiled(values)
    with torch.compiler.set_stance("fail_on_recompile"):
        for step in range(10):
            ig.reseed(graph, step)
            ig.reseed(compiled, step)
            torch.testing.assert_close(compiled(values), graph(values))


@pytest.mark.slow
def test_the_compiler_can_be_watched() -> None:
    """The page on runners says how, because the first call takes long and prints nothing by itself."""
    code = "import invgraph as ig, torch\nx = ig.InputNode(2)\n"
    code += "ig.Graph(x, ig.Node(x, ig.Permute)).compile(backend='eager')(torch.zeros(2, 2))"
    for watched in (False, True):
        env = {name: value for name, value in os.environ.items() if name != "TORCH_LOGS"}
        env.update({"TORCH_LOGS": "dynamo"} if watched else {})
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert ("torchdynamo start tracing" in done.stderr) == watched
        assert done.stdout == ""
    assert "TORCH_LOGS=dynamo" in (ROOT / "docs" / "runners.rst").read_text()


@torch.no_grad()
def test_copies_and_pickles_are_not_compiled() -> None:
    graph = build(lambda: deep_graph(1), torch.float32).compile(backend="eager")
    x, c = torch.zeros(2, 8), torch.zeros(2, 3)
    z, _ = graph(x, c)
    for copied in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert copied._compiled_inverse_impl is None
        assert torch.equal(copied(x, c)[0], z)
        assert torch.equal(copied.inverse(z, c)[0], graph.inverse(z, c)[0])


def test_equal_couplings_train_without_a_compiler_behind_them() -> None:
    """The backend for debugging; torch can't differentiate regions under it."""
    graph = build(lambda: deep_graph(3), torch.float32)
    exact = train(copy.deepcopy(graph), 4)
    for ours, theirs in zip(train(graph.compile(backend="eager"), 4), exact, strict=True):
        torch.testing.assert_close(ours, theirs)


BAD_CALLS = {
    "shape": ((torch.zeros(2, 7), torch.zeros(2, 3)), "wrong shape"),
    "dtype": ((torch.zeros(2, 8, dtype=torch.float64), torch.zeros(2, 3)), "nothing is cast silently"),
    "batch": ((torch.zeros(2, 8), torch.zeros(3, 3)), "batch 2"),
    "no condition": ((torch.zeros(2, 8),), "is missing"),
    "no tensor": (("a", torch.zeros(2, 3)), "expected a torch.Tensor"),
}


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_graphs_refuse_bad_input(fullgraph: bool) -> None:
    """With ``fullgraph`` the compiler would turn each error of this library into its own."""
    graph = build(lambda: deep_graph(1), torch.float32).compile(backend="eager", fullgraph=fullgraph)
    for call in (graph, graph.inverse)[: 2 if fullgraph else 1]:
        for args, words in list(BAD_CALLS.values())[:: 1 if fullgraph else 3]:
            with pytest.raises(ig.errors.InvgraphError, match=words):
                call(*args)
        call(torch.zeros(2, 8), torch.zeros(2, 3))


def test_an_error_of_a_network_is_that_of_the_compiler() -> None:
    class Breaking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return super().forward(x)

    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Additive(), "subnet": Breaking}))
    with pytest.raises(torch._dynamo.exc.Unsupported):
        graph.compile(backend="eager")(torch.zeros(3, 2))


@pytest.mark.skipif(not COMPILER, reason="inductor needs a compiler")
@pytest.mark.slow
def test_inductor_gives_eagers_gradients() -> None:
    """Regions share views of memory that inductor would use again (torch 2.13), if it were not told not to."""
    graph = build(lambda: deep_graph(3), torch.float32)  # with two blocks of width 4, nothing was used again
    compiled = copy.deepcopy(graph).compile()
    for ours, theirs in zip(train(compiled, 16), train(graph, 16), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp_min(1)


@pytest.mark.parametrize("known", [False, True])
def test_where_regions_could_be_wrong_there_are_no_regions(known: bool) -> None:
    """Under a backend that nobody has looked at; and under eager, which has no gradient for a region."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    x, c = torch.randn(4, 8), torch.randn(4, 3)
    eager = build(lambda: deep_graph(2), torch.float32)
    compiled = copy.deepcopy(eager).compile(backend="eager" if known else keep)
    losses = [negative(graph(x, c)) for graph in (compiled, eager)]
    ours, theirs = (
        [loss.detach(), *torch.autograd.grad(loss, list(graph.parameters()))]
        for loss, graph in zip(losses, (compiled, eager), strict=True)
    )
    assert_same_gradients(ours, theirs)
    assert known or graphs
    assert not any("subgraph" in name for graph in graphs for name, _ in graph.named_children())


def test_a_mode_is_kept() -> None:
    settings = _safe({"mode": "reduce-overhead", "dynamic": True}, has_regions=True)
    assert settings["dynamic"]
    assert settings["mode"] is None
    reuse = {"allow_buffer_reuse": False, "inplace_buffers": False}
    assert settings["options"] == {"triton.cudagraphs": True, "size_asserts": False, **reuse}
    assert _safe({"options": {"size_asserts": True}}, has_regions=False)["options"] == {"size_asserts": True}
    for given in ({"mode": "none such"}, {"mode": "default", "options": {"fallback_random": True}}):
        with pytest.raises(RuntimeError, match="mode"):
            build(lambda: deep_graph(1)).compile(**given)


@pytest.mark.slow
def test_a_coupling_that_comes_into_a_graph_without_regions_is_none() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    layers = [(ig.Autoregressive, {"transform": ig.Affine(), "hidden": 4})] * 2
    eager = build(lambda: ig.Graph(x, ig.chain(x, *layers, conditions=c), c), torch.float32)
    compiled = copy.deepcopy(eager).compile(backend="aot_eager")
    compiled(torch.randn(3, 4), torch.randn(3, 3))
    coupling = randomize(ig.Coupling((4,), ((3,),), transform=ig.Affine(), subnet=ig.nets.MLP(4)))
    for graph in (eager, compiled):
        for name in list(graph.layers):
            graph.layers[name] = copy.deepcopy(coupling)
    for ours, theirs in zip(train(compiled, 3, 4, False), train(eager, 3, 4, False), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp_min(1)


def test_hooks_on_a_layer_that_came_after_compilation_are_called() -> None:
    graph = build(lambda: deep_graph(2, width=4), torch.float32).compile(backend="eager")
    x, c, seen = torch.randn(3, 4), torch.randn(3, 3), list[str]()
    name = next(name for name, layer in graph.layers.items() if isinstance(layer, ig.Coupling))
    others = [copy.deepcopy(graph[name]) for _ in range(2)]
    with torch.no_grad():
        graph(x, c)
        for new in others:
            graph.layers[name] = new
            graph(x, c)
            new.register_forward_hook(lambda *given: seen.append("layer"))
            graph(x, c)
    assert seen == ["layer"] * 2


@pytest.mark.slow
def test_inductor_writes_the_wrapper_of_equal_layers_in_cpp() -> None:
    """Its C++ wrapper can't call a region, so there are none."""
    graph = build(lambda: deep_graph(2, width=4), torch.float32)
    compiled = copy.deepcopy(graph).compile(options={"cpp_wrapper": True})
    for ours, theirs in zip(train(compiled, 3, 4, False), train(graph, 3, 4, False), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp_min(1)


@pytest.mark.slow
def test_inductor_gives_eagers_numbers() -> None:
    graph = build(lambda: deep_graph(4, width=16), torch.float32)
    compiled = copy.deepcopy(graph).compile()
    for inverse in (False, True):
        for batch in (16, 5, 33):
            for ours, theirs in zip(train(compiled, batch, 16, inverse), train(graph, batch, 16, inverse), strict=True):
                assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp_min(1)


@pytest.mark.parametrize("case", some_parts(one_in=12))
def test_every_layer_under_inductor(case: Case) -> None:
    graph = in_a_graph(case, torch.float32)
    compiled = copy.deepcopy(graph).compile()
    with torch.no_grad():
        xs, cs = case.data(graph, torch.float32)
        assert worst(compiled(xs, cs), graph(xs, cs)) <= 5e-6
        ys, cs = case.latents(graph, torch.float32)
        assert worst(compiled.inverse(ys, cs), graph.inverse(ys, cs)) <= 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("inverse", [False, pytest.param(True, marks=pytest.mark.nightly)])  # minutes to compile
@pytest.mark.parametrize(
    "transform", [ig.MixtureCDF(components=3), ig.Bernstein(degree=6)], ids=["mixture", "bernstein"]
)
def test_couplings_whose_inverse_is_a_root_train_under_inductor(transform: Any, inverse: bool) -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": transform, "subnet": ig.nets.MLP(hidden=6)}
    graph = randomize(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c).double())
    compiled = copy.deepcopy(graph).compile()
    generator = torch.Generator().manual_seed(0)
    for batch in (16, 5):
        data, given = (torch.randn(batch, n, generator=generator, dtype=torch.float64) for n in (4, 3))
        found = []
        for module in (compiled, graph):
            z, log_det = module.inverse(data, given) if inverse else module(data, given)
            loss = z.square().sum() - log_det.sum()
            found.append([z, log_det, *torch.autograd.grad(loss, list(module.parameters()))])
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found, strict=True))


def test_a_bound_graph_of_a_compiled_graph_is_compiled() -> None:
    """So are the samples of a flow, under each condition with the same code."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    graph = ig.testing.randomize(ig.Graph(x, ig.chain(x, (ig.Coupling, args), ig.Permute, conditions=c), c))
    z, conditions = torch.randn(5, 2, 4), torch.randn(2, 3)
    expected = graph.bind(conditions).inverse(z)
    frames: list[Any] = []

    def backend(module: Any, inputs: Any) -> Any:
        frames.append(module)
        return module.forward

    torch._dynamo.reset()
    graph.compile(backend=backend)
    with torch.no_grad():
        found = graph.bind(conditions).inverse(z)
        assert len(frames) == 1
        graph.bind(torch.randn(2, 3)).inverse(z)
        ig.Flow(graph).sample(5, conditions)
    assert len(frames) == 1
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert copy.deepcopy(graph).bind(conditions).inverse(z)[0].shape == (5, 2, 4)
    assert len(frames) == 1


class Counting(nn.Module):
    """A subnet that changes a buffer at each call."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels_in, channels_out), nn.BatchNorm1d(channels_out))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_repeated_blocks_whose_subnets_change_buffers_train_compiled() -> None:
    """A region can't change a buffer, in evaluation mode either."""
    x = ig.InputNode(4, name="x")
    blocks = [(ig.Coupling, {"transform": ig.Affine(), "subnet": Counting})] * 2
    eager = ig.Graph(x, ig.chain(x, *blocks))
    ig.testing.randomize(eager)
    compiled = copy.deepcopy(eager).compile(backend="aot_eager")
    data = torch.randn(6, 4)
    for _ in range(2):
        found = []
        for graph in (compiled, eager):
            y, log_det = graph(data)
            (y.sum() + log_det.sum()).backward()
            found.append([log_det.detach(), *(p.grad for p in graph.parameters()), *graph.buffers()])
        for ours, theirs in zip(*found, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.allclose(compiled.eval()(data)[1], eager.eval()(data)[1], atol=1e-4)


def normed(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, channels_out))


@pytest.mark.parametrize("how", ["instance", "part", "class", "mode", "statistics", "buffer"])
def test_what_decides_about_regions_is_looked_up_again_when_it_changes(how: str) -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.chain(x, *[(ig.Coupling, {"transform": ig.Affine(), "subnet": normed})] * 2)).eval()
    share, net = EqualLayers(graph), next(part for part in graph.modules() if isinstance(part, nn.Sequential))
    assert share()
    net[0].register_forward_hook(lambda *args: None)
    assert share()
    if how == "instance":
        net[3].forward = lambda x: x  # type: ignore[method-assign]
    elif how == "part":
        net[2] = nn.Tanh()
    elif how == "class":
        net[2].__class__ = nn.Tanh
    elif how == "mode":
        net[1].train()
    elif how == "statistics":
        net[1].train()
        net[1].track_running_stats = False
    else:
        net[3].register_buffer("counter", torch.zeros(()))
    assert share() is (how == "statistics")
