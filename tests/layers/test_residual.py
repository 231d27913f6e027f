"""Residual: contraction, unbiased estimates, and the implicit gradient of the inverse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import invgraph as ig
from invgraph.core.stochastic import signs
from invgraph.layers import residual
from invgraph.nets.contraction import Contraction, norm_bound
from invgraph.testing import randomize

D = torch.float64


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (40, 40), (200, 10)])
def test_the_norm_is_bounded_from_above_and_closely(rows: int, columns: int) -> None:
    matrix = noise(rows, columns)
    exact = torch.linalg.matrix_norm(matrix, 2)
    assert exact * (1 - 1e-12) <= norm_bound(matrix) <= exact * 1.03
    assert math.isclose(norm_bound(matrix * 1e100), norm_bound(matrix) * 1e100, rel_tol=1e-9)


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e25])
def test_the_norm_of_huge_and_tiny_weights_has_a_gradient(factor: float) -> None:
    matrix = (noise(3, 4).float() * factor).requires_grad_()
    norm_bound(matrix).backward()
    u, _, vh = torch.linalg.svd(noise(3, 4))
    assert torch.allclose(matrix.grad.double(), torch.outer(u[:, 0], vh[0]), atol=0.05)


def test_a_new_layer_has_second_derivatives() -> None:
    layer = ig.Residual((2,), hidden=4).double()
    last = layer.net.weights[-1]
    (y,), _ = layer((torch.ones(1, 2, dtype=D),))
    (first,) = torch.autograd.grad(y.square().sum(), last, create_graph=True)
    first.square().sum().backward()
    assert bool(last.grad.isfinite().all())


def test_the_norm_of_zeros_has_a_finite_gradient() -> None:
    matrix = torch.zeros(3, 4, dtype=D, requires_grad=True)
    assert norm_bound(matrix) < 1e-3
    (matrix / (norm_bound(matrix) * 2).clamp_min(1)).sum().backward()
    assert bool(torch.isfinite(matrix.grad).all())


@pytest.mark.parametrize("shape", [(4,), (2, 6), (2, 4, 4), (1, 2, 2, 4)])
@pytest.mark.parametrize("bound", [0.5, 0.97])
def test_networks_contract_however_large_their_weights(shape: tuple[int, ...], bound: float) -> None:
    net = randomize(Contraction(shape, (), 8, 2, 3, bound).double(), scale=30.0)
    _, at = net.linearize(noise(5, *shape), (), net.bounded_weights())
    jacobian = net.jacobian(at, shape)
    worst = torch.linalg.matrix_norm(jacobian, 2).max()
    assert 1e-4 < worst <= bound  # the bound of a convolution's norm is loose: up to the root of its taps a layer


def test_the_jacobian_is_autograds() -> None:
    net = randomize(Contraction((2, 3, 3), ((1, 3, 3),), 4, 2, 3, 0.9).double(), scale=2.0)
    x, c = noise(2, 2, 3, 3), (noise(2, 1, 3, 3, seed=1),)
    _, at = net.linearize(x, net.precompute(c), net.bounded_weights())
    for row in range(2):
        part = (c[0][row : row + 1],)
        exact = torch.func.jacrev(lambda v, part=part: net(v[None], part)[0])(x[row]).view(18, 18)
        assert torch.allclose(net.jacobian(at, (2, 3, 3))[row], exact, atol=1e-13)
        v = noise(2, 2, 3, 3, seed=2)
        assert torch.allclose(net.push(v, at)[row].flatten(), exact @ v[row].flatten(), atol=1e-13)


def test_the_estimate_has_no_bias() -> None:
    exact = randomize(ig.Residual((2,), hidden=2, layers=1).double(), seed=4, scale=20.0)
    layer = ig.Residual((2,), hidden=2, layers=1, log_det="estimate", terms=2).double()
    layer.load_state_dict(exact.state_dict())
    x = noise(1, 2)
    truth = exact((x,))[1].item()
    draws = []
    for call in range(400):
        layer.train(call % 2 == 0).reseed(call)  # half of the numbers come from seeds
        draws.append(layer((x.expand(50, 2),))[1].detach())
    means = torch.stack(draws).mean(1)  # rows of one seed share the length of the series
    error = means.std() / math.sqrt(len(means))
    assert abs(truth) > 0.1
    assert abs(means.mean() - truth) < 4 * error < 0.1 * abs(truth)


def test_the_estimates_of_all_lengths_weigh_up_to_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ig.Residual((2,), hidden=3, layers=1, log_det="estimate", terms=2).double()
    randomize(layer, seed=3, scale=20.0)
    x = noise(1, 2)
    _, at = layer.net.linearize(x, layer.net.precompute(()), layer.net.bounded_weights())
    jacobian, probe = layer.net.jacobian(at, (2,))[0], signs(layer.seed, x)[0]
    power, series = probe, 0.0
    for k in range(1, 500):
        power = jacobian @ power
        series += (-1) ** (k + 1) / k * (probe @ power).item()
    expected = 0.0
    layer.eval()
    for length in range(2, 60):  # each one beyond two terms has half the probability of the one before
        monkeypatch.setattr(residual, "_extra_terms", lambda seed, extra=length - 2: torch.tensor(extra))
        expected += 0.5 ** (length - 1) * layer((x,))[1].item()
    assert abs(series) > 0.1
    assert abs(expected - series) < 1e-9


def test_the_estimate_is_repeatable_until_reseeded() -> None:
    layer = randomize(ig.Residual((3,), hidden=8, log_det="estimate", iterations=200).double()).eval()
    x = noise(4, 3)
    (y,), first = layer((x,))
    (back,), undone = layer.inverse((y,))
    assert torch.equal(first, layer((x,))[1])
    assert (first + undone).abs().max() < 1e-10
    assert (back - x).abs().max() < 1e-10
    ig.reseed(layer, 7)
    assert not torch.equal(first, layer((x,))[1])
    ig.reseed(layer, 7)
    assert layer.seed.item() == 7 * 1_000_003


def test_probes_differ_between_rows_and_are_balanced() -> None:
    probe = signs(torch.tensor(3), torch.zeros(1000, 10, dtype=D))
    assert set(probe.unique().tolist()) == {-1.0, 1.0}
    assert abs(probe.mean()) < 0.04
    assert (probe.t() @ probe / 1000 - torch.eye(10, dtype=D)).abs().max() < 0.15
    assert torch.equal(signs(torch.tensor(3), torch.zeros(7, 10, dtype=D)), probe[:7])


@pytest.mark.parametrize("log_det", ["exact", "estimate"])
def test_the_inverses_gradient_is_the_inverse_of_the_forwards(log_det: Any) -> None:
    layer = randomize(ig.Residual((3,), ((2,),), hidden=8, log_det=log_det, iterations=250).double(), scale=3.0)
    x, c = noise(1, 3), noise(1, 2, seed=1).requires_grad_()
    y = layer((x,), (c,))[0][0].detach()
    there = torch.autograd.functional.jacobian(lambda v: layer((v,), (c,))[0][0][0], x)[:, 0]
    back = torch.autograd.functional.jacobian(lambda v: layer.inverse((v,), (c,))[0][0][0], y)[:, 0]
    assert torch.allclose(there @ back, torch.eye(3, dtype=D), atol=1e-10)
    # dx/dc = -(dy/dx)^-1 dy/dc
    by_condition = torch.autograd.functional.jacobian(lambda v: layer((x,), (v,))[0][0][0], c)[:, 0]
    implicit = torch.autograd.functional.jacobian(lambda v: layer.inverse((y,), (v,))[0][0][0], c)[:, 0]
    assert torch.allclose(implicit, -back @ by_condition, atol=1e-10)


def test_the_inverse_is_exact_at_the_bound() -> None:
    layer = randomize(ig.Residual((6,), hidden=32, lipschitz=0.99).double(), scale=30.0)
    x = 3 * noise(20, 6)
    (back,), _ = layer.inverse(layer((x,))[0])
    assert (back - x).abs().max() < 1e-10


def test_it_starts_as_the_identity() -> None:
    layer, x = ig.Residual((3, 4, 4), hidden=8).double(), noise(2, 3, 4, 4)
    (y,), log_det = layer((x,))
    assert torch.equal(x, y)
    assert log_det.abs().max() == 0


def test_autocast_does_not_reach_inside() -> None:
    layer, x = randomize(ig.Residual((3,), hidden=8), scale=2.0), noise(4, 3).float()
    (y,), log_det = layer((x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,), same = layer((x,))
        (back,), _ = layer.inverse((y,))
    assert torch.equal(inside, y)
    assert torch.equal(log_det, same)
    assert (back - x).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"lipschitz": 1.0}, ig.GraphError, "in \\(0, 1\\)"),
        ({"log_det": "sampled"}, ig.GraphError, "'exact' or 'estimate'"),
        ({"kernel": 2}, ig.GraphError, "odd"),
        ({"hidden": 0}, ig.GraphError, "at least 1"),
        ({"terms": 2.5}, ig.ArgumentError, "must be an int"),
        ({"seed": "a"}, ig.ArgumentError, "seed must be an int"),
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.Residual((3, 4, 4), **args)


@pytest.mark.parametrize("log_det", ["exact", "estimate"])
@pytest.mark.parametrize("inverse", [False, True])
def test_second_derivatives(log_det: Any, inverse: bool) -> None:
    """In both directions, of the data, a condition and a weight."""
    layer = ig.testing.randomize(ig.Residual((3,), ((2,),), hidden=4, log_det=log_det, iterations=60)).double()
    layer.eval()  # in training, an estimate is another one at each call
    inputs = [torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (3, 2)]
    weight = layer.net.weights[1]

    def function(x: Tensor, c: Tensor, w: Tensor) -> Any:
        values = torch.func.functional_call(layer, {"net.weights.1": w}, ((x,), (c,))) if not inverse else None
        if values is None:
            values = torch.func.functional_call(ig.Inverse(layer), {"module.net.weights.1": w}, ((x,), (c,)))
        return values[0][0], values[1]

    leaf = weight.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(function, (*inputs, leaf), fast_mode=True)


def test_compiled_estimates_are_those_of_eager_for_every_length() -> None:
    """One compiled graph serves all seeds: it weighs the terms that are not wanted with 0."""
    layer = randomize(ig.Residual((2,), hidden=3, layers=1, log_det="estimate", terms=2).double(), scale=9.0).eval()
    counts = CompileCounter()
    run = torch.compile(lambda x: layer((x,))[1], backend=counts, fullgraph=True)
    x, lengths = noise(3, 2), set()
    for seed in range(40):
        layer.reseed(seed)
        lengths.add(int(residual._extra_terms(layer.seed)))
        assert torch.allclose(run(x), layer((x,))[1], rtol=0, atol=1e-12)
    assert counts.frame_count == 1
    assert len(lengths) > 3
