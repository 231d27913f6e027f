"""Dequantize: exact round trips of integers, the bound of the docstring, repeatable noise."""

from __future__ import annotations

import functools
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import invgraph as ig
from invgraph.testing import randomize


def integers(levels: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def variational(levels: int = 8) -> ig.Dequantize:
    """Noise that depends on the integers and on a condition."""
    noise = ig.Elementwise((3,), ((3,), (2,)), transform=ig.Affine(clamp=1.0), subnet=ig.nets.MLP(hidden=6))
    return randomize(ig.Dequantize((3,), ((2,),), levels=levels, noise=noise), scale=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 3, 32, 255, 256, 65536])
def test_integers_come_back_exactly(levels: int, dtype: torch.dtype) -> None:
    layer = ig.Dequantize((50,), levels=levels)
    x = integers(levels, 200, 50, dtype=dtype)
    x[0], x[1] = 0, levels - 1
    for seed in range(5):
        layer.reseed(seed)
        (y,), log_det = layer((x,))
        (back,), undone = layer.inverse((y,))
        assert y.dtype == log_det.dtype == dtype
        assert bool((y > 0).all())
        assert bool((y < 1).all())
        assert torch.equal(back, x)
        assert torch.equal(log_det, -undone)
        assert torch.allclose(log_det, torch.full_like(log_det, -50 * math.log(levels)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variational_noise_comes_back_with_its_density(dtype: torch.dtype) -> None:
    layer = variational().to(dtype)
    x = integers(8, 500, 3, dtype=dtype)
    c = torch.randn(500, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    (y,), log_det = layer((x,), (c,))
    (back,), undone = layer.inverse((y,), (c,))
    assert torch.equal(back, x)
    close = 1e-9 if dtype == torch.float64 else 1e-2
    assert (log_det + undone).abs().max() < close


def test_noise_is_uniform() -> None:
    layer = ig.Dequantize((20,), levels=4).double()
    u = layer((torch.zeros(5000, 20, dtype=torch.float64),))[0][0] * 4
    assert abs(u.mean() - 0.5) < 0.003
    assert abs(u.var() - 1 / 12) < 0.001
    counts = torch.histc(u, bins=20, min=0, max=1)
    assert (counts / 5000 - 1).abs().max() < 0.06
    correlation = torch.corrcoef(u.t()) - torch.eye(20)
    assert correlation.abs().max() < 0.06


def test_the_variational_density_integrates_to_one() -> None:
    """Integrate q, which the inverse gives at any point, over the interval of one integer."""
    noise = ig.Elementwise((1,), ((1,),), transform=ig.Affine(clamp=1.0), subnet=ig.nets.MLP(hidden=6))
    layer = randomize(ig.Dequantize((1,), levels=4, noise=noise), scale=1.0).double()
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    (x,), log_det = layer.inverse((((2 + u) / 4)[:, None],))
    density = torch.exp(log_det - math.log(4)).detach()
    assert bool((x == 2).all())
    assert density.std() > 0.1
    assert abs(density.mean() - 1) < 1e-6


def test_the_bound_is_tight_for_the_uniform_density_only() -> None:
    """For uniform y, P(x) = 1 / 8 per element: uniform noise attains the bound, other noise stays below on average."""
    c = torch.ones(20_000, 2, dtype=torch.float64)
    x = torch.full((20_000, 3), 5.0, dtype=torch.float64)
    exact = -3 * math.log(8)
    assert torch.allclose(ig.Dequantize((3,), levels=8).double()((x,))[1], torch.tensor(exact, dtype=torch.float64))
    assert variational().double()((x,), (c,))[1].mean() < exact - 0.01


@pytest.mark.parametrize("fixed", [False, True])
def test_in_evaluation_or_if_fixed_the_noise_changes_with_the_seed_alone(fixed: bool) -> None:
    layer, x = ig.Dequantize((4,), levels=4, fixed_noise=fixed).train(fixed), torch.zeros(3, 4)
    assert layer.stochastic != fixed
    state = torch.get_rng_state()
    (y,), _ = layer((x,))
    assert torch.equal(y, layer((x,))[0][0])
    assert torch.equal(y[:2], layer((x[:2],))[0][0])  # rows keep their noise whatever the batch
    assert len(set(y.flatten().tolist())) == 12
    layer.reseed(1)
    assert not torch.isclose(y, layer((x,))[0][0]).any()
    assert torch.equal(state, torch.get_rng_state())


def test_a_flow_over_integers_trains_its_noise() -> None:
    x, c = ig.InputNode(3, name="x"), ig.ConditionNode(2, name="c")
    noise = ig.Elementwise((3,), ((3,), (2,)), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=6))
    h = ig.Node(x, ig.Dequantize, {"levels": 4, "noise": noise}, conditions=c, name="dequantize")
    h = ig.Node(h, ig.LearnedScaling, name="scale")
    flow = ig.Flow(randomize(ig.Graph(x, h, c)))
    data, label = integers(4, 16, 3, dtype=torch.float32), torch.zeros(16, 2)
    flow.loss(data, label).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in flow.parameters())
    samples = flow.sample(5, label, generator=torch.Generator().manual_seed(0))
    assert bool(((samples >= 0) & (samples <= 3) & (samples == samples.round())).all())


@pytest.mark.parametrize(
    ("shapes", "args", "error", "words"),
    [
        (((3,), ()), {"levels": 1}, ig.GraphError, "levels must be at least 2"),
        (((3,), ()), {"levels": 2.0}, ig.ArgumentError, "must be an int"),
        (((3,), ((2,),)), {}, ig.GraphError, "give noise="),
        (((3,), ()), {"noise": torch.nn.Linear(3, 3)}, ig.ArgumentError, "invertible layer or graph"),
        (((3,), ()), {"noise": ig.Permute((3,))}, ig.GraphError, "expected .* under \\(\\(3,\\),\\)"),
    ],
)
def test_wrong_arguments_are_refused(shapes: Any, args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.Dequantize(*shapes, **args)


WRONG: tuple[tuple[list[float], int, str], ...] = (
    ([0.0, 0.5, 1.0, 0.25], 256, "2 of 4 values are not integers from 0 to 255: 0.5, 0.25"),
    ([3.3, 1.0, 2.0, 300.0], 256, "3.3, 300"),
    ([-1.0, 0.0, 7.0, 8.0], 8, "-1, 8"),
    ([0.0, 0.0, math.inf, 0.0], 8, "1 of 4 values are not integers from 0 to 7: inf"),
)


@pytest.mark.parametrize(("values", "levels", "words"), WRONG)
def test_values_that_are_no_integers_are_refused_in_training(values: list[float], levels: int, words: str) -> None:
    """Also within a graph, in each of its runners; in evaluation mode, compiled, or if told so, nothing is read."""
    x = torch.tensor([values])
    layer = ig.Dequantize((4,), levels=levels)
    node = ig.InputNode(4, name="pixels")
    graph = ig.Graph(node, ig.Node(node, ig.Dequantize, {"levels": levels}, name="noise"))
    flow = ig.Flow(graph, base=torch.distributions.Uniform(torch.zeros(4), torch.ones(4)))
    for call in (graph, ig.reversible(graph), flow.log_prob, lambda x: layer((x,))):
        with pytest.raises(ig.NumericsError, match=re.escape(words)):
            call(x)
    with pytest.raises(ig.NumericsError, match="node 'noise'"):
        graph(x)
    torch.compile(layer, backend="eager", fullgraph=True)((x,))
    torch.vmap(lambda row: layer((row[None],))[0][0], randomness="different")(x)
    layer.to("meta")((x.to("meta"),))
    graph.eval()(x)
    ig.Dequantize((4,), levels=levels, check_domain=False)((x,))
    graph.train()(torch.full((1, 4), math.nan))
    graph(torch.arange(4.0).expand(2, 4))


@pytest.mark.parametrize("training", [False, True])
def test_a_reversible_graph_takes_integers_alone_and_no_inverse(training: bool) -> None:
    """It rebuilds integers: of other values, gradients of variational noise would be wrong by less than it notices."""
    node, c = ig.InputNode(3, name="pixels"), ig.ConditionNode(2, name="c")
    layer = variational(256).double()
    layer.check_domain = False
    graph = ig.Graph(node, ig.Node(node, layer, conditions=c, name="noise"), c).train(training)
    runner, given = ig.reversible(graph), torch.zeros(2, 2, dtype=torch.float64)
    wrong = torch.tensor([[3.3, 0.0, 255.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    with pytest.raises(ig.NumericsError, match=r"node 'noise'(?s:.*)1 of 6 values are not integers .*: 3.3"):
        runner(wrong, given)
    assert graph(wrong, given)[0].shape == (2, 3)
    with torch.no_grad():
        assert runner(wrong, given)[0].shape == (2, 3)
    y, _ = runner(wrong.round(), given)
    y.sum().backward()
    with pytest.raises(ig.GraphError, match=r"node 'noise'(?s:.*)it rounds"):
        runner.inverse(y.detach(), given)
    assert graph.inverse(y.detach(), given)[0].equal(wrong.round())


def noisy(kind: str) -> ig.Graph:
    """A graph with a stochastic layer between couplings."""
    layer, args = {
        "dequantize": (ig.Dequantize, {"levels": 4}),
        "residual": (ig.Residual, {"hidden": 6, "log_det": "estimate"}),
        "continuous": (
            ig.ContinuousFlow,
            {"subnet": ig.nets.ResidualMLP(4), "time": 0.2, "steps": 1, "trace": "estimate"},
        ),
    }[kind]
    x = ig.InputNode(3, name="x")
    coupling = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}
    h = ig.Node(ig.Node(x, layer, args, name="noise"), ig.Coupling, coupling, name="coupling")
    return randomize(ig.Graph(x, h)).double()


def loss_and_gradients(call: Any, graph: ig.Graph, x: Tensor, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    z, log_det = call(x)
    loss = z.square().sum() - log_det.sum()
    return [loss, *torch.autograd.grad(loss, list(graph.parameters()))]


@pytest.mark.parametrize("kind", ["dequantize", "residual", "continuous"])
def test_noise_is_fresh_in_training_in_every_runner(kind: str) -> None:
    """The global seed decides; the reversible and the checkpointed run repeat the noise of their forward pass."""
    graph, x = noisy(kind), integers(4, 5, 3, dtype=torch.float64)
    assert graph.stochastic
    base = loss_and_gradients(graph, graph, x)
    assert abs(base[0] - loss_and_gradients(graph, graph, x, seed=1)[0]) > 1e-3
    checkpointed = functools.partial(checkpoint, graph, use_reentrant=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated")  # by torch's forward mode itself
        for call in (graph, ig.reversible(graph), checkpointed, ig.Inverse(ig.Inverse(graph))):
            found = loss_and_gradients(call, graph, x)
            assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(base, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["residual", "dequantize", "continuous"])
def test_noise_is_fresh_in_training_when_compiled(kind: str) -> None:
    graph, x = noisy(kind), integers(4, 5, 3, dtype=torch.float64)
    compiled = torch.compile(graph, backend="eager", fullgraph=True)
    for training in (True, False):
        graph.train(training)
        with torch.no_grad():
            (first, its), (second, other) = compiled(x), compiled(x)
        pair = (first, second) if kind == "dequantize" else (its, other)
        assert torch.equal(*pair) != training
    assert torch.equal(first, graph(x)[0])
    assert torch.allclose(its, graph(x)[1], rtol=0, atol=1e-12)


def test_a_reversible_pass_keeps_its_noise_whatever_happens_before_backward() -> None:
    graph, x = noisy("dequantize"), integers(4, 5, 3, dtype=torch.float64)
    base = loss_and_gradients(graph, graph, x)
    torch.manual_seed(0)
    z, log_det = ig.reversible(graph)(x)
    graph.eval()
    ig.reseed(graph, 3)
    found = torch.autograd.grad(z.square().sum() - log_det.sum(), list(graph.parameters()))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(base[1:], found, strict=True))


def test_bound_samples_have_noise_of_their_own() -> None:
    x, c = ig.InputNode(3, name="x"), ig.ConditionNode(2, name="c")
    h = ig.Node(x, ig.Dequantize, {"levels": 4}, name="noise")
    h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}, conditions=c, name="coupling")
    bound = ig.Graph(x, h, c).bind(torch.zeros(2, 2))
    first, second = (bound(torch.zeros(50, 2, 3))[0] for _ in range(2))
    assert not torch.isclose(first, second).any()
    assert len(first.flatten().unique()) > 290


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, pytest.param(4, marks=pytest.mark.nightly), 64])
def test_a_flow_cannot_learn_the_noise(batch: int) -> None:
    """Four equally likely values have 2 bits; with the same noise at every step, 0.36 to 1.9 were reported."""
    x = ig.InputNode(1, name="x")
    transforms = (ig.Logit(alpha=0.01), ig.RationalQuadraticSpline(bins=32, bound=6), ig.Affine())
    h = ig.chain(x, (ig.Dequantize, {"levels": 4}), *[(ig.Elementwise, {"transform": t}) for t in transforms])
    flow = ig.Flow(ig.Graph(x, h))
    data = integers(4, 800 * batch, 1, dtype=torch.float32).split(batch)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-2)
    bits = []
    for rows in data:
        loss = -flow.log_prob(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    tail = torch.tensor(bits[-200:]).mean().item()
    print(f"batch {batch}: {tail:.2f} bits")
    assert tail > 1.98


def test_reseed_gives_each_layer_a_seed_of_its_own() -> None:
    layers = nn.ModuleList(ig.Dequantize((2,), levels=4) for _ in range(3))
    ig.reseed(layers, 5)
    assert len({int(layer.seed) for layer in layers}) == 3


@pytest.mark.parametrize("shift", [-200.0, 200.0])
def test_noise_at_its_edge_rounds_to_no_other_integer(shift: float) -> None:
    noise = ig.Elementwise((2,), ((2,),), transform=ig.Additive(), subnet=ig.nets.MLP(4))
    nn.init.constant_(noise.subnet.last_parameters()[-1], shift)
    layer = ig.Dequantize((2,), levels=4, noise=noise)
    x = torch.tensor([[0.0, 3.0], [1.0, 2.0]])
    (y,), _ = layer((x,))
    assert torch.equal(layer.inverse((y,))[0][0], x)


def test_noise_that_rounds_to_an_integer_has_a_density() -> None:
    noise = ig.Elementwise((1,), ((1,),), transform=ig.Affine(), subnet=ig.nets.MLP(4))
    layer = ig.Dequantize((1,), noise=noise).eval()
    edges = torch.tensor([[0.5], [0.0], [1.0], [3 / 256]])
    (x,), log_det = layer.inverse((edges,))
    assert x.flatten().tolist() == [128, 0, 255, 3]
    assert bool(log_det.isfinite().all())


@pytest.mark.parametrize(("dtype", "levels"), [(torch.bfloat16, 256), (torch.float16, 1024), (torch.float32, 2**23)])
def test_a_dtype_without_room_for_noise_is_refused(dtype: torch.dtype, levels: int) -> None:
    layer = ig.Dequantize((1,), levels=levels).to(dtype).eval()
    for call in (layer, layer.inverse):
        with pytest.raises(ig.InputTypeError, match="no bit is left for noise"):
            call((torch.zeros(1, 1, dtype=dtype),))


@pytest.mark.parametrize(("dtype", "levels"), [(torch.bfloat16, 32), (torch.float16, 256), (torch.float32, 2**21)])
def test_the_coarsest_dtypes_return_every_integer(dtype: torch.dtype, levels: int) -> None:
    layer = ig.Dequantize((1,), levels=levels).to(dtype).eval()
    x = torch.arange(levels, dtype=torch.float64)[:: max(1, levels // 4096)].to(dtype)[:, None]
    (y,), _ = layer((x,))
    assert torch.equal(layer.inverse((y,))[0][0], x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_learned_noise_may_have_half_precision(dtype: torch.dtype) -> None:
    layer = ig.Dequantize(
        (3,), levels=4, noise=ig.Elementwise((3,), ((3,),), transform=ig.Affine(), subnet=ig.nets.MLP(4))
    ).to(dtype)
    x = integers(4, 5, 3, dtype=dtype)
    (y,), log_det = layer((x,))
    assert y.dtype == log_det.dtype == dtype
    assert bool(log_det.isfinite().all())
    assert torch.equal(layer.inverse((y,))[0][0], x)


def test_reseed_takes_numpys_ints_of_any_width() -> None:
    """They would overflow where the seeds of the layers are derived from them."""
    found = []
    for seed in (np.uint8(3), np.int16(3), np.int64(3), 3):
        layer = ig.Dequantize((2,), levels=8)
        ig.reseed(layer, seed)  # type: ignore[arg-type]
        found.append(layer.seed.item())
    assert len(set(found)) == 1
