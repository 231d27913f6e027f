"""Numbers: what is not finite passes through and is never invented, ``check_finite`` finds where it begins, and a
float64 graph is float64 throughout."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from cases import CASES, Case
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from training import make_flow

import invgraph as ig
from invgraph.testing import randomize


def checked() -> tuple[ig.Graph, dict[str, nn.Module]]:
    """A graph of 15 nodes that looks for NaN and infinities, and its layers with parameters."""
    x, c = ig.InputNode(1, 4, 4, name="x"), ig.ConditionNode(10, name="c")
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 10, "out_features": 4}, name="feature")
    h = ig.Node(x, ig.Flatten, name="flatten")
    for k in range(6):
        h = ig.Node(h, ig.Elementwise, {"transform": ig.Affine()}, name=f"scale_{k}")
        args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=6)}
        h = ig.Node(h, ig.Coupling, args, conditions=feature, name=f"coupling_{k}")
    a, b = ig.Node(h, ig.Split, {"sizes": (6, 10)}, name="split")
    b = ig.Node(b, ig.Elementwise, {"transform": ig.Affine()}, name="last")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        graph = randomize(ig.Graph(x, [a, b], c, check_finite=True))
    return graph, {name: layer for name, layer in graph.layers.items() if any(True for _ in layer.parameters())}


NODES = list(checked()[1])
BAD = {"nan": float("nan"), "inf": float("inf")}
FAULTS = [(name, bad, direction) for direction in ("forward", "inverse") for bad in BAD for name in NODES]


@pytest.mark.parametrize(("name", "bad", "direction"), FAULTS)
def test_a_fault_is_traced_to_its_node(name: str, bad: str, direction: str) -> None:
    """The last bias of a node's network, or its last shift, is spoiled."""
    graph, layers = checked()
    with torch.no_grad():
        last = [p for key, p in layers[name].named_parameters() if key.endswith(("layers.1.bias", "params", "bias"))][
            -1
        ]
        last.view(-1)[-1] = BAD[bad]
    x, c = torch.randn(3, 1, 4, 4), torch.randn(3, 10)
    with pytest.raises(ig.NumericsError) as caught:
        graph(x, c) if direction == "forward" else graph.inverse((torch.randn(3, 6), torch.randn(3, 10)), c)
    assert re.match(rf"node '{name}' \(\w+\)\n", str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("name", "bad", "direction"), FAULTS)
def test_a_bound_graph_traces_a_fault_too(name: str, bad: str, direction: str) -> None:
    graph, layers = checked()
    with torch.no_grad():
        last = [p for key, p in layers[name].named_parameters() if key.endswith(("layers.1.bias", "params", "bias"))][
            -1
        ]
        last.view(-1)[-1] = BAD[bad]
    c = torch.randn(3, 10)
    x, latents = torch.randn(2, 3, 1, 4, 4), (torch.randn(2, 3, 6), torch.randn(2, 3, 10))
    with pytest.raises(ig.NumericsError) as caught:  # features are computed by bind itself
        graph.bind(c)(x) if direction == "forward" else graph.bind(c).inverse(latents)
    assert re.match(rf"node '{name}' \(\w+\)\n", str(caught.value)), str(caught.value)


def test_samples_of_a_checked_graph_are_traced() -> None:
    graph, layers = checked()
    with torch.no_grad():
        layers["scale_3"].params.view(-1)[-1] = float("nan")
    with pytest.raises(ig.NumericsError, match=r"node 'scale_3' \(Elementwise\)"):
        ig.Flow(graph).sample(2, torch.randn(3, 10))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_what_came_in_is_blamed_on_no_node(bad: float, place: int) -> None:
    graph, _ = checked()
    values = [torch.randn(3, 1, 4, 4), torch.randn(3, 10), torch.randn(3, 6), torch.randn(3, 10)]
    values[place].view(-1)[-1] = bad
    x, c, a, b = values
    names = ("input 'x'", "condition 'c'", "output 'split[0]'", "output 'last'")
    forward, inverse = (lambda: graph(x, c)), (lambda: graph.inverse((a, b), c))
    bound = (lambda: graph.bind(c)(x[None])), (lambda: graph.bind(c).inverse((a[None], b[None])))
    for calls, places in (((forward, bound[0]), (0, 1)), ((inverse, bound[1]), (1, 2, 3))):
        for call in calls if place in places else ():
            with pytest.raises(ig.NumericsError) as caught:
                call()
            told = str(caught.value).splitlines()
            where = "Graph.bind" if call in bound else "Graph"
            assert told[:2] == [where, f"  given: {names[place]}: NaN or infinite"]
            reader = {0: "flatten", 1: "feature", 2: "split", 3: "last"}[place]
            assert told[2] == f"  the call received it like this: node '{reader}' reads it first"


def test_there_are_thirty_faults() -> None:
    assert len(FAULTS) >= 30
    print(f"{len(FAULTS)} injected faults, each traced to its node")


class Spoiled(ig.Invertible):
    """The identity of two values, but for one of its results."""

    arity = 2

    def __init__(self, in_shapes: Any, cond_shapes: Any = (), *, result: int) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.result = result

    @property
    def out_shapes(self) -> Any:
        return self.in_shapes

    def _forward(self, xs: Any, cs: Any) -> Any:
        results = [*xs, torch.zeros(len(xs[0]))]
        results[self.result] = results[self.result] + torch.inf
        return tuple(results[:2]), results[2]

    _inverse = _forward


@pytest.mark.parametrize("result", range(3))
def test_every_result_of_a_node_is_looked_at(result: int) -> None:
    """Its first and second value, and its log-determinant."""
    x, y = ig.InputNode(2, name="x"), ig.InputNode(3, name="y")
    graph = ig.Graph((x, y), list(ig.Node((x, y), Spoiled, {"result": result}, name="node")), check_finite=True)
    for direction in (graph, graph.inverse):
        with pytest.raises(ig.NumericsError, match="node 'node'"):
            direction((torch.zeros(4, 2), torch.zeros(4, 3)))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_data_pass_through_and_touch_no_other_row(bad: float) -> None:
    flow = make_flow()
    x, c = torch.randn(4, 1, 4, 4), torch.randn(4, 10)
    flow.graph.initialize(x, c)
    clean, log_det = flow.graph(x, c)
    spoiled = x.clone()
    spoiled[1, 0, 2, 2] = bad
    z, spoiled_log_det = flow.graph(spoiled, c)
    assert not z[1].isfinite().all()
    others = [0, 2, 3]
    assert torch.equal(z[others], clean[others])
    assert torch.equal(spoiled_log_det[others], log_det[others])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nothing_infinite_is_invented_from_finite_numbers(case: Case) -> None:
    """Twenty rows of ordinary and of large and tiny numbers (1e4, 1e-30) inside the domain."""
    module = case.build(torch.float64).eval()
    for (values, cs), direction in (
        (case.data(module, torch.float64, batch=20), module),
        (case.latents(module, torch.float64, batch=20), module.inverse),
    ):
        bounded = case.domain if direction is module else case.codomain
        if bounded is None:
            scales = torch.tensor([1.0, 1e4, 1e-30, 0.0]).repeat(5).double()
            values = tuple(v * scales.view(-1, *(1,) * (v.ndim - 1)) for v in values)
        with torch.no_grad():
            outputs, log_det = direction(values, cs)
        assert all(output.isfinite().all() for output in (*outputs, log_det))


class Hunt(TorchFunctionMode):
    """Every tensor that any torch function makes or takes must be float64, if it is floating at all."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs or {}, result)):
            if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
                self.found.append(f"{getattr(func, '__name__', func)}: {value.dtype} {tuple(value.shape)}")
        return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_float32_hides_in_a_float64_layer(case: Case) -> None:
    module = case.build(torch.float64)
    floating = {name: t.dtype for name, t in module.state_dict().items() if t.is_floating_point()}
    assert set(floating.values()) <= {torch.float64}
    xs, cs = case.data(module, torch.float64)
    ys, ds = case.latents(module, torch.float64)
    with Hunt() as hunt:
        module(xs, cs)
        module.inverse(ys, ds)
    assert not hunt.found, hunt.found[:5]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_constant_was_rounded_to_float32(case: Case) -> None:
    """Numbers that float32 can hold exactly would show where float64 constants were made from float32 ones."""
    if "repeatable" in case.without:
        return
    module = case.build(torch.float64).eval()
    xs, cs = case.data(module, torch.float64)
    with torch.no_grad():
        ys, log_det = module(xs, cs)
        back, inverse_log_det = module.inverse(ys, cs)
    rounding = max(case.tolerance, 1e-10)
    if "round_trip" not in case.without:
        assert max((a - b).abs().max().item() for a, b in zip(back, xs, strict=True)) <= rounding
        assert (log_det + inverse_log_det).abs().max().item() <= 10 * rounding
