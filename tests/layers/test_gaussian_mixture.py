"""GaussianMixture: torch's mixture density, without overflow; the chosen component becomes a standard normal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import invgraph as ig
from invgraph.testing import randomize

D = torch.float64


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def mixture(seed: int = 0) -> ig.GaussianMixture:
    layer = ig.GaussianMixture((3,), ((4,), (2,)), subnet=ig.nets.MLP(hidden=8))
    return randomize(layer, seed=seed, scale=1.0).double()


def as_torch(layer: ig.GaussianMixture, cs: tuple[torch.Tensor, ...]) -> MixtureSameFamily:
    log_weights, means, _, factors = layer._components(cs)
    precision = factors.transpose(-1, -2) @ factors
    return MixtureSameFamily(Categorical(logits=log_weights), MultivariateNormal(means, precision_matrix=precision))


def test_the_density_is_torchs() -> None:
    layer, x, c = mixture(), noise(6, 3), noise(6, 2, seed=1)
    reference = as_torch(layer, (c,))
    assert torch.allclose(layer.log_prob(x, (c,)), reference.log_prob(x), atol=1e-10)
    joint = reference.component_distribution.log_prob(x[:, None]) + reference.mixture_distribution.logits
    assert torch.allclose(layer.posterior(x, (c,)), joint.softmax(1), atol=1e-10)
    assert torch.allclose(layer.weights((c,)), reference.mixture_distribution.probs, atol=1e-12)


def test_a_chosen_component_becomes_a_standard_normal() -> None:
    layer, x, c = mixture(), noise(6, 3), noise(6, 2, seed=1)
    for k in range(4):
        choice = torch.nn.functional.one_hot(torch.tensor([k] * 6), 4).to(D)
        (y,), log_det = layer((x,), (choice, c))
        component = as_torch(layer, (c,)).component_distribution
        expected = component.log_prob(x[:, None])[:, k]
        log_prob = -0.5 * y.square().sum(1) - 1.5 * torch.log(torch.tensor(2 * torch.pi, dtype=D)) + log_det
        assert torch.allclose(log_prob, expected, atol=1e-10)


def test_samples_of_chosen_components_follow_the_mixture() -> None:
    layer = mixture()
    c = noise(1, 2, seed=1).expand(40_000, 2)
    choice = layer.choose((c,), seed=3)
    assert set(choice.sum(1).tolist()) == {1.0}
    assert (choice.mean(0) - layer.weights((c[:1],))[0]).abs().max() < 0.01
    (x,), _ = layer.inverse((noise(40_000, 3, seed=2),), (choice, c))
    reference = as_torch(layer, (c[:1],))
    spread = reference.variance[0].sqrt()
    assert ((x.mean(0) - reference.mean[0]).abs() < 5 * spread / 200).all()
    assert ((x.var(0) / reference.variance[0] - 1).abs() < 0.1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_overflow_far_away_and_with_extreme_components(dtype: torch.dtype) -> None:
    layer = ig.GaussianMixture((3,), ((4,),)).to(dtype)
    with torch.no_grad():
        layer.params.copy_(1e4 * noise(*layer.params.shape))
    x = torch.cat((noise(5, 3) * 1e3, noise(5, 3) * 1e-30)).to(dtype).requires_grad_()
    log_prob = layer.log_prob(x)
    log_prob.sum().backward()
    assert bool(torch.isfinite(log_prob).all())
    assert bool(torch.isfinite(x.grad).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    assert bool(torch.isfinite(layer.posterior(x)).all())


def test_draws_are_repeatable_and_leave_the_global_state_alone() -> None:
    layer = ig.GaussianMixture((2,), ((3,),))
    state = torch.get_rng_state()
    first = layer.choose(seed=1, count=20)
    assert first.shape == (20, 3)
    assert torch.equal(first, layer.choose(seed=1, count=20))
    assert not torch.equal(first, layer.choose(seed=2, count=20))
    assert torch.equal(state, torch.get_rng_state())


def test_fitting_finds_two_clusters() -> None:
    layer = ig.GaussianMixture((2,), ((2,),)).double()
    g = torch.Generator().manual_seed(0)
    data = torch.cat((noise(300, 2) * 0.3 + 2, torch.randn(100, 2, generator=g, dtype=D) * 0.5 - 2))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -layer.log_prob(data).mean()
        loss.backward()
        optimizer.step()
    exact = MixtureSameFamily(
        Categorical(probs=torch.tensor([0.75, 0.25], dtype=D)),
        MultivariateNormal(
            torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=D),
            torch.eye(2, dtype=D) * torch.tensor([0.09, 0.25], dtype=D)[:, None, None],
        ),
    )
    assert loss < -exact.log_prob(data).mean() + 0.01


@pytest.mark.parametrize(
    ("shapes", "args", "words"),
    [
        (((2, 3, 3), ((2,),)), {}, "expected a vector"),
        (((3,), ()), {}, "first condition chooses"),
        (((3,), ((2, 3, 3),)), {}, "first condition chooses"),
        (((3,), ((2,), (4,))), {}, "need a subnet"),
        (((3,), ((2,),)), {"subnet": ig.nets.MLP(4)}, "need a subnet"),
        (((3,), ((2,),)), {"clamp": 0.0}, "clamp must be positive"),
    ],
)
def test_wrong_arguments_are_refused(shapes: Any, args: dict[str, Any], words: str) -> None:
    with pytest.raises(ig.GraphError, match=words):
        ig.GaussianMixture(*shapes, **args)


WRONG_CALLS: tuple[tuple[Any, Any, type[Exception], str], ...] = (
    (noise(5, 1), (noise(5, 2),), ig.ShapeError, r"input 0: expected \(B, 3\), got \(5, 1\)"),
    (noise(5, 3), (noise(5, 1),), ig.ShapeError, r"condition 0: expected \(B, 2\), got \(5, 1\)"),
    (noise(5, 3), (), ig.ShapeError, "condition 0 is missing"),
    (noise(5, 3), None, ig.ShapeError, "condition 0 is missing"),
    (noise(5, 3), (noise(5, 2), noise(5, 2)), ig.ShapeError, "surplus condition"),
    (noise(5, 3), noise(5, 2), ig.InputTypeError, r"\(x,\) for a tensor x"),
    (noise(5, 3), (noise(4, 2),), ig.ShapeError, "batch 5, condition 0: batch 4"),
    (noise(5, 3), (noise(1, 2),), ig.ShapeError, "batch 5, condition 0: batch 1"),
    (noise(5, 3).float(), (noise(5, 2),), ig.InputTypeError, "input 0: torch.float32"),
    (noise(5, 3), (noise(5, 2).float(),), ig.InputTypeError, "condition 0: torch.float32"),
    (noise(5, 3), (torch.zeros(5, dtype=torch.int64),), ig.InputTypeError, "condition 0: torch.int64"),
    ([0.0], (noise(5, 2),), ig.InputTypeError, "input 0: list"),
)


@pytest.mark.parametrize(("x", "cs", "error", "words"), WRONG_CALLS)
def test_methods_check_their_arguments_as_a_call_does(x: Any, cs: Any, error: type[Exception], words: str) -> None:
    layer = mixture()
    for method in (layer.log_prob, layer.posterior):
        with pytest.raises(error, match=words):
            method(x, cs)
    if ("condition 0:" in words and "batch" not in words) or "missing" in words or "surplus" in words:
        for draw in (lambda: layer.choose(cs, seed=1), lambda: layer.weights(cs)):
            with pytest.raises(error, match=words):
                draw()


def test_methods_without_conditions_still_work() -> None:
    layer = ig.GaussianMixture((3,), ((4,),)).double()
    assert layer.log_prob(noise(5, 3)).shape == (5,)
    assert layer.choose(seed=1, count=3).shape == (3, 4)
    with pytest.raises(ig.ShapeError, match="surplus"):
        layer.choose((noise(5, 2),), seed=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_the_components_that_single_precision_does(dtype: torch.dtype) -> None:
    layer = ig.GaussianMixture((2,), ((4,),)).to(dtype)
    chosen = layer.choose(seed=0, count=4000)
    assert chosen.dtype == dtype
    assert (chosen.float().mean(0) - 0.25).abs().max() < 0.03
