"""The reversible runner against plain autograd."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import CASES, Case, wide_graph
from small_graphs import AFFINE, MLP, agree, build, crossed_graph, deep_graph, draw
from torch import Tensor, nn
from torch.func import functional_call

import invgraph as ig


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("make", [wide_graph, crossed_graph, lambda: deep_graph(6)])
def test_gradients_are_those_of_plain_autograd(make: Callable[[], ig.Graph], inverse: bool) -> None:
    agree(build(make), inverse)
    agree(build(make), inverse, anchors=2)


def in_a_graph(case: Case) -> ig.Graph:
    module = case.build(torch.float64)
    xs = [ig.InputNode(*shape, name=f"x{i}") for i, shape in enumerate(module.in_shapes)]
    cs = [ig.ConditionNode(*shape, name=f"c{i}") for i, shape in enumerate(module.cond_shapes)]
    return ig.Graph(xs, list(ig.Node(xs, module, conditions=cs, name="layer")), cs)


UNBOUNDED = [case for case in CASES if case.domain is None and case.codomain is None and case.tolerance <= 1e-10]
assert all("inverse_round_trip" not in case.without for case in UNBOUNDED)


@pytest.mark.parametrize("case", UNBOUNDED, ids=[case.id for case in UNBOUNDED])
def test_every_layer_trains_reversibly(case: Case) -> None:
    agree(in_a_graph(case), False)


def test_parameters_of_two_layers_have_the_sum_of_their_gradients() -> None:
    graph = build(lambda: deep_graph(2))
    first, second = (layer for layer in graph.layers.values() if isinstance(layer, ig.Coupling))
    second.subnets = first.subnets
    agree(graph, False)


def test_frozen_parameters_and_conditions_without_gradient() -> None:
    graph = build(lambda: deep_graph(3))
    for p in graph["coupling_1"].parameters():
        p.requires_grad_(False)
    (x,), (c,) = draw(graph)
    z, log_det = ig.reversible(graph)(x.detach(), c.detach())
    (z.sum() + log_det.sum()).backward()
    assert all((p.grad is None) != p.requires_grad for p in graph.parameters())


def test_parameters_put_in_for_one_call_are_those_of_its_backward_pass_alone() -> None:
    graph = build(lambda: deep_graph(2))
    runner, own = ig.reversible(graph), dict(graph.named_parameters())
    (x,), (c,) = draw(graph)
    others = {name: (p * 1.5).detach().requires_grad_() for name, p in own.items()}
    exact, found = (
        torch.autograd.grad(z.square().sum() - log_det.sum(), list(others.values()))
        for z, log_det in (
            functional_call(graph, others, (x, c)),
            functional_call(runner, {f"model.{name}": p for name, p in others.items()}, (x, c)),
        )
    )
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    assert all(p is own[name] for name, p in graph.named_parameters())


def test_parameters_taken_away_between_the_passes_are_put_back_for_the_second() -> None:
    """Sharding takes them away after each call."""
    graph = build(lambda: deep_graph(2))
    (x,), (c,) = draw(graph)
    parameters = list(graph.parameters())
    z, log_det = graph(x, c)
    right = torch.autograd.grad(z.square().sum() - log_det.sum(), parameters)
    z, log_det = ig.reversible(graph)(x, c)
    linears = [part for part in graph.modules() if isinstance(part, nn.Linear)]
    for linear in linears:
        del linear.weight
    found = torch.autograd.grad(z.square().sum() - log_det.sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(right, found, strict=True))
    assert len(linears) > 2
    assert not any("weight" in linear._parameters for linear in linears)


def test_without_gradient_it_is_the_plain_graph() -> None:
    graph = build(lambda: deep_graph(2))
    (x,), (c,) = draw(graph)
    with torch.no_grad():
        assert torch.equal(ig.reversible(graph)(x, c)[0], graph(x, c)[0])


def saved_bytes(call: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass, parameters left out."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if not (t.is_leaf and t.requires_grad):
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = call()
    del result
    gc.collect()
    return sum(kept.values())


def test_saved_activations_do_not_grow_with_depth() -> None:
    sizes = {}
    for depth in (4, 64):
        graph = build(lambda depth=depth: deep_graph(depth), torch.float32)  # type: ignore[misc]
        x, c = torch.randn(64, 8), torch.randn(64, 3)
        runner = ig.reversible(graph)
        sizes[depth] = saved_bytes(lambda runner=runner, x=x, c=c: runner(x, c))  # type: ignore[misc]
    assert sizes[4] > 0
    assert sizes[64] / sizes[4] <= 1.1


class Counting(nn.Module):
    calls = 0

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return self.linear(x)


def test_a_couplings_subnets_run_once_forward_and_once_backward() -> None:
    graph = build(lambda: deep_graph(2, subnet=Counting))
    (x,), (c,) = draw(graph)
    Counting.calls = 0
    z, _ = ig.reversible(graph)(x, c)
    assert Counting.calls == 4
    z.sum().backward()
    assert Counting.calls == 8


def test_a_reversible_node_draws_the_noise_of_the_call_again() -> None:
    q, x = ig.InputNode(2), ig.InputNode(2)
    args = {"transform": ig.Affine(clamp=1.0), "subnet": MLP}
    inner = ig.Graph(q, ig.chain(q, (ig.Dequantize, {"levels": 8}), (ig.Coupling, args)))
    graph = build(lambda: ig.Graph(x, ig.Node(x, ig.reversible(inner))))
    data, found = torch.randint(0, 8, (6, 2)).double(), []
    for model in (graph, ig.reversible(graph)):
        torch.manual_seed(1)
        z, log_det = model(data)
        found.append(torch.autograd.grad(z.square().sum() - log_det.sum(), tuple(graph.parameters())))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("kind", ["frozen parameters", "buffers"])
def test_frozen_tensors_put_in_for_one_call_are_those_of_its_backward_pass(kind: str) -> None:
    def net(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, channels_out))

    x = ig.InputNode(2)
    coupling = (ig.Coupling, {"transform": ig.Affine(clamp=1.0), "subnet": net})
    graph = build(lambda: ig.Graph(x, ig.chain(x, coupling, coupling))).eval()
    others = {name: p.detach().clone().requires_grad_() for name, p in graph.named_parameters()}
    for name, value in graph.named_buffers() if kind == "buffers" else graph.named_parameters():
        if "coupling_1" in name:
            others[name] = value.detach() * 1.005
    data, found = torch.randn(9, 2, dtype=torch.float64), []
    own = tuple(value for value in others.values() if value.requires_grad)
    for model, prefix in ((graph, ""), (ig.reversible(graph), "model.")):
        z, log_det = functional_call(model, {prefix + name: value for name, value in others.items()}, (data,))
        found.append(torch.autograd.grad(z.square().sum() - log_det.sum(), own))
    torch.testing.assert_close(found[1], found[0])


def test_gradients_reach_parametrized_weights_that_are_cached_outside() -> None:
    x = ig.InputNode(2)
    args = {"transform": ig.Affine(), "subnet": lambda n, m: nn.utils.parametrizations.weight_norm(nn.Linear(n, m))}
    graph = build(lambda: ig.Graph(x, ig.Node(x, ig.Coupling, args)))
    data, found = torch.ones(2, 2, dtype=torch.float64), []
    for model in (graph, ig.reversible(graph)):
        with nn.utils.parametrize.cached():
            z, log_det = model(data)
            found.append(torch.autograd.grad(z.sum() - log_det.sum(), tuple(graph.parameters())))
    torch.testing.assert_close(found[1], found[0])


def test_a_frozen_parameter_changed_in_place_before_the_backward_pass_is_named() -> None:
    graph = build(lambda: deep_graph(3))
    graph["coupling_1"].requires_grad_(False)
    (x,), (c,) = draw(graph)
    z, _ = ig.reversible(graph)(x, c)
    next(graph["coupling_1"].parameters()).mul_(1.005)
    with pytest.raises(ig.NumericsError, match="frozen parameters that were overwritten"):
        z.sum().backward()


def test_another_thread_may_draw_random_numbers() -> None:
    graph, stop = build(lambda: deep_graph(6)), threading.Event()
    (x,), (c,) = draw(graph)

    def disturb() -> None:
        while not stop.is_set():
            torch.rand(1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(20):
            ig.reversible(graph)(x, c)[1].sum().backward()
    finally:
        stop.set()
        thread.join()


def test_dropout_is_refused_in_training_and_allowed_in_evaluation() -> None:
    def dropping(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(channels_in, channels_out))

    graph = build(lambda: deep_graph(1, subnet=dropping))
    (x,), (c,) = draw(graph)
    with pytest.raises(ig.GraphError, match="dropout"):
        ig.reversible(graph)(x, c)
    agree(graph.eval(), False)
    ig.init.identity(graph.train())
    with pytest.raises(ig.GraphError, match="dropout"):  # although it changes no value yet
        ig.reversible(graph)(x, c)


def normed(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 6), nn.BatchNorm1d(6), nn.Linear(6, channels_out))


def test_backward_runs_in_the_modes_of_the_forward() -> None:
    graph = build(lambda: deep_graph(2, subnet=normed))
    (x,), (c,) = draw(graph)
    found = []
    for module in (graph, ig.reversible(graph)):
        z, log_det = module.train()(x, c)
        graph.eval()
        found.append(torch.autograd.grad(z.square().sum() - log_det.sum(), list(graph.parameters())))
        assert not any(part.training for part in graph.modules())
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_threads_that_train_one_graph_count_all_batches() -> None:
    """A backward pass leaves statistics alone, but not those of another thread's forward pass."""
    graph = build(lambda: deep_graph(2, subnet=normed))
    (x,), (c,) = draw(graph)
    runner = ig.reversible(graph)

    def train(_: int) -> None:
        for _ in range(10):
            z, log_det = runner(x, c)
            torch.autograd.grad(z.square().sum() - log_det.sum(), list(graph.parameters()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(train, range(4)))
    counts = [int(part.num_batches_tracked) for part in graph.modules() if isinstance(part, nn.BatchNorm1d)]
    assert counts == [40] * len(counts)


def test_batch_norm_counts_each_batch_once() -> None:
    graph = build(lambda: deep_graph(2, subnet=normed))
    plain = copy.deepcopy(graph)
    (x,), (c,) = draw(graph)
    for module, twin in ((ig.reversible(graph), graph), (plain, plain)):
        z, log_det = module(x, c)
        (z.square().sum() - log_det.sum()).backward()
        assert all(m.track_running_stats for m in twin.modules() if isinstance(m, nn.BatchNorm1d))
    for (name, ours), theirs in zip(graph.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(ours, theirs), name
    for ours, theirs in zip(graph.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-10)  # type: ignore[arg-type]


def test_double_backward_is_refused() -> None:
    graph = build(lambda: deep_graph(1))
    (x,), (c,) = draw(graph)
    z, _ = ig.reversible(graph)(x, c)
    with pytest.raises(ig.GraphError, match="double backward"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


@pytest.mark.parametrize("what", ["output", "condition", "parameter"])
def test_what_changed_in_place_before_backward_is_refused(what: str) -> None:
    graph = build(lambda: deep_graph(1))
    (x,), (c,) = draw(graph)
    z, log_det = ig.reversible(graph)(x, c)
    changed = {"output": z, "condition": c, "parameter": next(graph.parameters())}[what]
    with torch.no_grad():
        changed.mul_(2)
    with pytest.raises(ig.NumericsError, match="changed in place"):
        log_det.sum().backward()


def test_the_drift_guard_names_the_node() -> None:
    x = ig.InputNode(4, name="x")
    args = {"transform": AFFINE, "subnet": MLP}
    bad = ig.FixedLinear((4,), matrix=torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-11], dtype=torch.float64)))
    h = ig.Node(ig.Node(ig.Node(x, ig.Coupling, args, name="one"), bad, name="bad"), ig.Coupling, args, name="two")
    graph = build(lambda: ig.Graph(x, h), torch.float32)
    data = torch.randn(5, 4)
    z, _ = ig.reversible(graph)(data)
    with pytest.raises(ig.NumericsError, match="'bad'"):
        z.sum().backward()
    z, _ = ig.reversible(graph, tolerance=None)(data)
    z.sum().backward()


def test_values_outside_of_a_domain_are_named() -> None:
    x = ig.InputNode(4, name="x")
    graph = build(lambda: ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Logit()}, name="logit")))
    z, _ = ig.reversible(graph)(torch.tensor([[0.5, 1.5, 0.2, 2.0]], dtype=torch.float64, requires_grad=True))
    with pytest.raises(ig.NumericsError, match=r"'logit' .* can't give back .*: 2 of 4 values lie outside of \(0, 1\)"):
        z.sum().backward()


def test_the_drift_of_every_input_is_seen() -> None:
    """The first input is rebuilt exactly, the second is not."""
    x, y = ig.InputNode(4, name="x"), ig.InputNode(4, name="y")
    args = {"transform": AFFINE, "subnet": MLP}
    bad = ig.FixedLinear((4,), matrix=torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-11], dtype=torch.float64)))
    h = ig.Node(ig.Node(ig.Node(y, ig.Coupling, args), bad, name="bad"), ig.Coupling, args)
    graph = build(lambda: ig.Graph((x, y), (ig.Node(x, ig.Permute), h)), torch.float32)
    (a, b), _ = ig.reversible(graph)((torch.randn(5, 4), torch.randn(5, 4)))
    with pytest.raises(ig.NumericsError, match="'bad'"):
        (a.sum() + b.sum()).backward()


def test_tiny_values_may_differ_by_the_rounding_of_larger_ones() -> None:
    graph = build(lambda: deep_graph(3), torch.float32)
    z, _ = ig.reversible(graph)(1e-7 * torch.randn(5, 8), torch.randn(5, 3))
    z.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in graph.parameters())


def test_anchors_bound_the_drift() -> None:
    graph = build(lambda: deep_graph(64), torch.float32)
    x, c = torch.randn(16, 8), torch.randn(16, 3)
    exact = copy.deepcopy(graph).double()
    z, log_det = exact(x.double(), c.double())
    (z.square().sum() - log_det.sum()).backward()
    errors = []
    for anchors in (None, 4):
        graph.zero_grad()
        z, log_det = ig.reversible(graph, anchors=anchors, tolerance=None)(x, c)
        (z.square().sum() - log_det.sum()).backward()
        pairs = zip(graph.parameters(), exact.parameters(), strict=True)
        errors.append(max(float((p.grad - q.grad).abs().max()) for p, q in pairs))  # type: ignore[operator]
    assert errors[1] < 0.5 * errors[0]


def test_autocast_is_the_same_in_backward() -> None:
    graph = build(lambda: deep_graph(3, width=16), torch.float32)
    x, c = torch.randn(8, 16), torch.randn(8, 3)
    found = []
    for module in (graph, ig.reversible(graph)):
        graph.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z, log_det = module(x, c)
            assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)
        (z.square().sum() - log_det.sum()).backward()
        found.append([p.grad.clone() for p in graph.parameters()])  # type: ignore[union-attr]
    for plain, ours in zip(*found, strict=True):
        assert torch.allclose(plain, ours, rtol=0.05, atol=0.05 * float(plain.abs().max()))
        assert ours.abs().sum() > 0 or plain.abs().sum() == 0


def test_backward_runs_a_node_again_in_the_precision_of_the_forward() -> None:
    graph = build(lambda: deep_graph(1), torch.float32)
    seen: list[torch.dtype] = []
    for part in graph.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = ig.reversible(graph)(torch.randn(8, 8), torch.randn(8, 3))
    forward = len(seen)
    (z.square().sum() - log_det.sum()).backward()
    assert len(seen) > forward > 0
    assert set(seen) == {torch.bfloat16}


def test_the_arguments_are_checked() -> None:
    graph = deep_graph(1)
    with pytest.raises(ig.ArgumentError, match="anchors must be an int"):
        ig.reversible(graph, anchors=1.5)  # type: ignore[arg-type]
    with pytest.raises(ig.GraphError, match="at least 1"):
        ig.reversible(graph, anchors=0)
    with pytest.raises(ig.GraphError, match="positive"):
        ig.reversible(graph, tolerance=-1)
    with pytest.raises(ig.ArgumentError, match="expected a Graph"):
        ig.reversible(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_not_blamed_on_a_node() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}))
    data = torch.randn(3, 4)
    data[1, 2] = float("nan")
    z, log_det = ig.reversible(graph)(data)
    with pytest.raises(ig.NumericsError, match=r"NaN or infinity\n.*leave such samples out"):
        (z.sum() + log_det.sum()).backward()
