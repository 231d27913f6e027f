"""Random objects in every argument of the public API: our own exceptions, or success; nothing half-made is left."""

from __future__ import annotations

import inspect
import math
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from training import digest, make_flow

import invgraph as ig


def junk(chance: random.Random) -> Any:
    """Some object: often nearly right, sometimes absurd. Made anew for each call, small, without side effects."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.choice([True, False]),
        lambda: chance.choice([-1, 0, 1, 2, 3, 4, 5, 8, 10**30, -(10**30)]),
        lambda: chance.choice([0.0, 0.5, 1.0, -1.0, 2.5, 1e-300, 1e300, math.nan, math.inf, -math.inf]),
        lambda: chance.choice(["", "x", "a.b", "forward", "checkerboard", "exact", "soft", "é\0", "x" * 500]),
        lambda: chance.choice([b"", b"\x80\x04", 1j, Ellipsis, NotImplemented, object(), range(4), slice(1)]),
        lambda: chance.choice([(), (4,), (2, 4, 4), ((4,),), ((4,), (3,)), (0,), (-1,), (2.5,), ("a",), ((),)]),
        lambda: chance.choice([[], [4], [[1.0, 0.0], [0.0, 1.0]], [0, 1, 2, 3], [x, x], [x, c], [None], ["x"]]),
        lambda: chance.choice([{}, {"seed": 1}, {"sizes": (1, 3)}, {1: 2}, {"a": {"b": object()}}]),
        lambda: chance.choice([set(), {1, 2}, frozenset((x,)), iter([x]), (value for value in (1, 2))]),
        lambda: chance.choice([x, c, ig.Node(x, ig.Flatten), ig.Node(x, ig.Split, {"sizes": (1, 3)}), x[0]]),
        lambda: chance.choice([ig.Flatten, ig.Coupling, ig.Graph, ig.Node, nn.Linear, int, dict, ig.Invertible]),
        lambda: chance.choice([ig.Flatten((4,)), ig.Affine(), ig.Additive(), nn.Linear(4, 4), nn.ReLU()]),
        lambda: chance.choice([ig.nets.MLP(hidden=4), ig.nets.ConvNet(hidden=2), lambda a, b: nn.Linear(a, b),
                               lambda: None, lambda a, b: None, lambda a, b: nn.Linear(b, a), print]),
        lambda: ig.Graph(x, ig.Node(x, ig.Flatten)),
        lambda: make_flow(blocks=1),
        lambda: chance.choice([torch.zeros(2, 4), torch.zeros(4), torch.tensor(1.0), torch.zeros(0, 4)]),
        lambda: chance.choice([torch.zeros(2, 4).long(), torch.zeros(2, 4, dtype=torch.complex64),
                               torch.eye(4).double(),
                               torch.eye(3).to_sparse(), torch.empty(2, 4, device="meta"), torch.full((4, 4), math.nan),
                               torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)], layout=torch.jagged)]),
        lambda: chance.choice([np.zeros((2, 4)), np.int64(4), np.float64(0.5), np.array(["a"]), np.array(None)]),
        lambda: torch.distributions.Normal(torch.zeros(4), torch.ones(4)),
        lambda: torch.Generator(),
    ]  # fmt: skip
    return chance.choice(makers)()


def ready() -> ig.Flow:
    """A flow that can be called: its ActNorm was initialized."""
    flow = make_flow(blocks=1)
    flow.graph.initialize(torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 10))
    return flow


def small() -> ig.Graph:
    """A graph that is quickly exported."""
    x = ig.InputNode(4, name="x")
    return ig.Graph(x, ig.Node(x, ig.Flatten, name="flatten"))


VALID: dict[str, Callable[[], Any]] = {
    "in_shapes": lambda: ((4,),),
    "cond_shapes": lambda: (),
    "transform": ig.Affine,
    "subnet": lambda: ig.nets.MLP(hidden=4),
    "sizes": lambda: (1, 3),
    "shape": lambda: (2, 2),
    "matrix": lambda: torch.eye(4),
    "hidden": lambda: 8,
    "rank": lambda: 2,
    "inputs": lambda: ig.InputNode(4, name="x"),
    "conditions": lambda: (),
    "outputs": lambda: ig.InputNode(4, name="y"),
    "module": lambda: ig.Flatten,
    "built": lambda: ig.testing.randomize(ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=4))),
    "graph": lambda: ready().graph,
    "model": small,
    "x": lambda: torch.arange(32.0).view(2, 1, 4, 4).sin(),
    "z": lambda: torch.zeros(2, 16),
    "images": lambda: torch.zeros(3, 2, 1, 4, 4),
    "latents": lambda: torch.zeros(3, 2, 16),
    "c": lambda: torch.zeros(2, 10),
    "n": lambda: 2,
    "sigma": lambda: 0.1,
    "seed": lambda: 0,
    "path": lambda: "model.safetensors",
    "state": ig.rng_state,
    "name": lambda: "flatten",
    "index": lambda: 0,
}
LAYERS = [value for value in vars(ig).values() if isinstance(value, type) and issubclass(value, ig.Invertible)
          and not inspect.isabstract(value)]  # fmt: skip
TRANSFORMS = [value for value in vars(ig).values() if isinstance(value, type) and issubclass(value, ig.Transform)
              and not inspect.isabstract(value)]  # fmt: skip
TARGETS: dict[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in (*LAYERS, *TRANSFORMS)},
    **{f"nets.{name}": kind for name, kind in vars(ig.nets).items() if isinstance(kind, type)},
    "Node": ig.Node,
    "Node of a class": lambda module, args: ig.Node(ig.InputNode(4), module, args),
    "Node[]": lambda index: ig.InputNode(4)[index],
    "InputNode": ig.InputNode,
    "ConditionNode": ig.ConditionNode,
    "FeatureNode": ig.FeatureNode,
    "chain": ig.chain,
    "Graph[]": lambda name: ready().graph[name],
    "Graph.forward": lambda x, c: ready().graph(x, c),
    "Graph.inverse": lambda z, c: ready().graph.inverse(z, c),
    "Graph.initialize": lambda x, c: make_flow(blocks=1).graph.initialize(x, c),
    "Graph.bind": lambda c, gradients=False: ready().graph.bind(c, gradients=gradients),
    "Bound()": lambda images, c: ready().graph.bind(c)(images),
    "Bound.inverse": lambda latents, c: ready().graph.bind(c).inverse(latents),
    "Graph.compile": lambda fullgraph=True, dynamic=None: small().compile(
        fullgraph=fullgraph, dynamic=dynamic, backend="eager"),
    "Graph.trace": lambda x, c, inverse=False: ready().graph.trace(x, c, inverse=inverse),
    "Graph.log_dets": lambda x, c, inverse=False: ready().graph.log_dets(x, c, inverse=inverse),
    "Graph.at": lambda shape: small().at(x=shape),
    "Graph.draw": lambda path, fold=True, theme="auto": small().draw(path, fold=fold, theme=theme),
    "Graph.summary": lambda x, c: ready().graph.summary(x, c),
    "Graph.transform": lambda c, cache_size=0: ready().graph.transform(c, cache_size),
    "Flow": ig.Flow,
    "Flow.forward": lambda x, c: ready()(x, c),
    "Flow.log_prob": lambda x, c: ready().log_prob(x, c),
    "Flow.loss": lambda x, c, tau=0.0: ready().loss(x, c, tau),
    "Flow.sample": lambda n, c, temperature=1.0, generator=None: ready().sample(n, c, temperature, generator=generator),
    "Flow.rsample": lambda n, c, temperature=1.0, generator=None: ready().rsample(
        n, c, temperature, generator=generator),
    "Flow.sample_and_log_prob": lambda n, c, generator=None, chunk=None: ready().sample_and_log_prob(
        n, c, generator=generator, chunk=chunk),
    "Flow.rsample_and_log_prob": lambda n, c, generator=None, chunk=None: ready().rsample_and_log_prob(
        n, c, generator=generator, chunk=chunk),
    "Flow.bind": lambda c, gradients=False: ready().bind(c, gradients=gradients),
    "Flow.given": lambda c: ready().given(c),
    "Flow.denoise": lambda x, c, sigma: ready().denoise(x, c, sigma),
    "GaussianMixture.choose": lambda seed, count=1: ig.GaussianMixture((2,), ((3,),)).choose(seed=seed, count=count),
    "save": lambda path, graph, training=None, metadata=None: ig.save(
        path, graph, training=training, metadata=metadata),
    "load": ig.load,
    "reversible": ig.reversible,
    "reseed": lambda built, seed: ig.reseed(built, seed),
    "rng_state": ig.rng_state,
    "set_rng_state": ig.set_rng_state,
    "diagnose": lambda graph, x, c, iterations=2, seed=0: ig.diagnose(graph, x, c, iterations=iterations, seed=seed),
    "Diagnosis[]": lambda name: ig.diagnose(small(), torch.zeros(2, 4), iterations=1)[name],
    "export": lambda model, what="forward", example=None: ig.export(model, what, example=example),
    # These two take seconds where they succeed: they are asked for what there isn't, after their other checks.
    "export_onnx": lambda model, path: ig.export_onnx(model, path, "density"),
    "export_aoti": lambda model, path: ig.export_aoti(model, path, "density"),
    "init.identity": lambda built: ig.init.identity(built),
    "init.xavier": lambda built, gain=1.0, seed=0, zero_last=True: ig.init.xavier(
        built, gain, seed=seed, zero_last=zero_last),
    "init.scaled_normal": lambda built, std=0.03, seed=0, zero_last=True: ig.init.scaled_normal(
        built, std, seed=seed, zero_last=zero_last),
    "fused": lambda enabled: ig.fused(enabled).__exit__(None, None, None),
    "testing.randomize": lambda built, seed=0, scale=0.3: ig.testing.randomize(built, seed, scale),
    "testing.check_invertible": lambda built, batch=3, seed=0, tolerance=1e-3, log_det_tolerance=1e-3, max_dims=64:
        ig.testing.check_invertible(built, batch=batch, seed=seed, tolerance=tolerance,
                                    log_det_tolerance=log_det_tolerance, max_dims=max_dims),
}  # fmt: skip
UNTRIED = {
    **dict.fromkeys(("Checkpoint", "Diagnosis", "Value", "Summary", "NodeSummary", "Trace", "FlowDistribution",
                     "GraphTransform", "testing.Report", "testing.NodeReport"), "the library makes it"),
    **dict.fromkeys(("Invertible", "Transform", "Subnet", "SubnetFactory"), "it is abstract"),
    **dict.fromkeys(("testing.graphs", "testing.layers", "testing.shapes"), "hypothesis checks its strategies"),
}  # fmt: skip


def public() -> set[str]:
    """Everything that a user calls, by its name."""
    named = {name: value for name, value in vars(ig).items() if callable(value) and not name.startswith("_")}
    errors = {name for name, value in named.items() if isinstance(value, type) and issubclass(value, BaseException)}
    own = {name for name, value in named.items() if value.__module__.startswith("invgraph.")} - errors
    own |= {f"nets.{name}" for name, value in vars(ig.nets).items() if isinstance(value, type)}
    own |= {f"init.{name}" for name, value in vars(ig.init).items() if inspect.isfunction(value)
            and value.__module__ == "invgraph.init" and not name.startswith("_")}  # fmt: skip
    own |= {f"testing.{name}" for name in ("check_invertible", "randomize", "graphs", "layers", "shapes", "Report",
                                           "NodeReport")}  # fmt: skip
    for kind in (ig.Graph, ig.Flow):
        classes = (cls for cls in kind.__mro__ if cls.__module__.startswith("invgraph."))
        methods = {name for cls in classes for name, value in vars(cls).items()
                   if inspect.isfunction(value) and not name.startswith("_")}  # fmt: skip
        own |= {f"{kind.__name__}.{name}" for name in methods - {"extra_repr", "precompute"}}
    return own


def arguments(target: Callable[..., Any], chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
    """Values for the parameters, some of them valid; at least one random."""
    parameters = list(inspect.signature(target).parameters.values())
    spoiled = chance.choice(parameters) if parameters and chance.random() < 0.8 else None
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [junk(chance) for _ in range(chance.randrange(3))]
        elif parameter is spoiled or chance.random() < 0.1:
            named[parameter.name] = junk(chance)
        elif parameter.default is parameter.empty:
            named[parameter.name] = VALID[parameter.name]() if parameter.name in VALID else junk(chance)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        before = [named.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name in named]
        positional = before + positional
    return positional, named


def outcome(name: str, seed: int) -> str:
    """Call the target with random arguments; what came of it."""
    chance = random.Random(f"{name} {seed}")
    positional, named = arguments(TARGETS[name], chance)
    try:
        TARGETS[name](*positional, **named)
    except ig.InvgraphError as error:
        return type(error).__name__ if len(str(error).splitlines()) >= 3 else "fewer than three lines"
    return "success"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random strings are random paths: let them be written here."""
    monkeypatch.chdir(tempfile.mkdtemp(dir=tmp_path))


def test_everything_public_is_tried() -> None:
    assert public() - set(TARGETS) == set(UNTRIED)


@pytest.mark.parametrize("calls", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_arguments_raise_our_exceptions_or_succeed(calls: int) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=calls, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(TARGETS)), st.integers(0, 10**6))
    def call(name: str, seed: int) -> None:
        found = outcome(name, seed)
        assert found != "fewer than three lines"
        counts[found] += 1

    call()
    print(dict(counts))
    assert sum(counts.values()) >= calls
    assert counts["success"] > calls // 20
    assert counts.total() - counts["success"] > calls // 4


def test_a_failed_build_leaves_nothing_half_made() -> None:
    """The nodes and layers of a refused graph are as they were, and build the right graph afterwards."""
    x, y, c = ig.InputNode(4, name="x"), ig.InputNode(4, name="y"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=4)}
    h = ig.Node(x, ig.Coupling, args, conditions=c, name="h")
    k = ig.Node(y, ig.Coupling, args, conditions=h, name="k")
    before = [(dict(vars(node)), node.module.label, digest(node.module)) for node in (h, k)]
    for inputs, outputs, conditions in (
        (x, [h, k], c), ([x, y], h, c), ([x, y], k, c), ([x, y], [h, k], ()), ([x, x], [h, k], c), ([x, y], [h, h], c),
        ([x, y], [h, k], [c, ig.ConditionNode(2)]), ([x, y], {h, k}, c), ([x, y], [h, k, None], c), ([], [h, k], c),
    ):  # fmt: skip
        with pytest.raises(ig.InvgraphError):
            ig.Graph(inputs, outputs, conditions)
        with pytest.raises(ig.InvgraphError):
            ig.Node(k, ig.Coupling, {**args, "split": 9}, conditions=c)
    assert [(dict(vars(node)), node.module.label, digest(node.module)) for node in (h, k)] == before
    graph = ig.Graph([x, y], [h, k], c)
    (a, b), log_det = graph((torch.zeros(2, 4), torch.zeros(2, 4)), torch.zeros(2, 3))
    assert a.shape == b.shape == (2, 4)
    assert log_det.shape == (2,)
