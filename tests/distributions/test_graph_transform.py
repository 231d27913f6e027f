"""A graph as torch's transform: its numbers, its cache, and its place in torch's own distributions."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, ComposeTransform

import invgraph as ig
from invgraph.testing import randomize


def graph_of(conditions: bool = True) -> ig.Graph:
    x = ig.InputNode(1, 2, 2, name="x")
    c = ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Flatten)
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    h = ig.Node(h, ig.Coupling, args, conditions=c if conditions else (), name="coupling")
    graph = ig.Graph(x, h, c if conditions else ())
    randomize(graph)
    return graph


def counted(graph: ig.Graph) -> list[int]:
    calls: list[int] = []
    graph["coupling"].register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("batch", [(), (5,), (4, 5)])
def test_values_and_log_determinants_are_the_graphs(batch: Any) -> None:
    graph, c = graph_of(), torch.randn(*batch, 3)
    transform = graph.transform(c)
    x = torch.randn(7, *batch, 1, 2, 2)
    y = transform(x)
    expected, log_det = graph(x.reshape(-1, 1, 2, 2), c.expand(7, *batch, 3).reshape(-1, 3))
    torch.testing.assert_close(y, expected.reshape(7, *batch, 4))
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), log_det.reshape(7, *batch))
    torch.testing.assert_close(transform.inv(y), x)
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(y, x), -log_det.reshape(7, *batch))
    assert transform.forward_shape(x.shape) == y.shape
    assert transform.inverse_shape(y.shape) == x.shape
    assert (transform.domain.event_dim, transform.codomain.event_dim) == (3, 1)


def test_a_log_determinant_that_is_known_costs_nothing() -> None:
    graph = graph_of(conditions=False)
    transform, calls = graph.transform(), counted(graph)
    x = torch.randn(5, 1, 2, 2)
    y = transform(x)
    log_det = transform.log_abs_det_jacobian(x, y)
    assert len(calls) == 1
    torch.testing.assert_close(log_det, graph(x)[1])
    back = transform.inv(y)
    calls.clear()
    torch.testing.assert_close(transform.log_abs_det_jacobian(back, y), log_det)
    assert calls == []
    transform.log_abs_det_jacobian(back.clone(), y)
    assert len(calls) == 1


@pytest.mark.parametrize("cache", [0, 1])
def test_pairs_are_kept_only_with_a_cache(cache: int) -> None:
    transform = graph_of(conditions=False).transform().with_cache(cache)
    x = torch.randn(5, 1, 2, 2)
    y = transform(x)
    assert (transform.inv(y) is x) == bool(cache)


@pytest.mark.parametrize("change", ["parameters", "values", "gradients", "conditions"])
def test_a_pair_is_not_used_again_after_a_change(change: str) -> None:
    graph, c = graph_of(), torch.randn(5, 3)
    transform = graph.transform(c, cache_size=1)
    x = torch.randn(5, 1, 2, 2)
    with torch.no_grad():
        y = transform(x)
        if change == "parameters":
            next(graph.parameters()).add_(1.0)
        elif change == "values":
            x.add_(1.0)
        elif change == "conditions":
            c.add_(1.0)
    with torch.set_grad_enabled(change == "gradients"):
        again, log_det = transform(x), transform.log_abs_det_jacobian(x, transform(x))
        expected = graph(x, c)
    torch.testing.assert_close((again, log_det), expected)
    assert again is not y
    assert log_det.requires_grad == (change == "gradients")


def test_a_transformed_normal_is_the_flow() -> None:
    graph, c = graph_of(), torch.randn(5, 3)
    base = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    density = TransformedDistribution(base, [graph.transform(c).inv])
    assert (density.batch_shape, density.event_shape) == ((5,), (1, 2, 2))
    x = density.rsample((7,))
    assert x.shape == (7, 5, 1, 2, 2)
    torch.testing.assert_close(density.log_prob(x), ig.Flow(graph).given(c).log_prob(x))
    assert density.expand((3, 5)).sample().shape == (3, 5, 1, 2, 2)


def test_a_base_of_numbers_and_other_transforms_beside() -> None:
    graph = graph_of(conditions=False)
    density = TransformedDistribution(
        Normal(torch.zeros(4), torch.ones(4)), [graph.transform(cache_size=1).inv, AffineTransform(1.0, 2.0, 3)]
    )
    assert density.batch_shape == ()
    x = density.sample((6,))
    expected = ig.Flow(graph).log_prob((x - 1) / 2) - 4 * torch.tensor(2.0).log()
    torch.testing.assert_close(density.log_prob(x), expected)
    composed = ComposeTransform([graph.transform().inv, AffineTransform(1.0, 2.0, 3)], cache_size=1)
    z = torch.randn(6, 4)
    torch.testing.assert_close(composed.inv(composed(z)), z)


def test_gradients_through_a_sample_and_its_density() -> None:
    graph = graph_of()
    base = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    for cache in (0, 1):
        density = TransformedDistribution(base, [graph.transform(torch.randn(3), cache_size=cache).inv])
        x = density.rsample((9,))
        grads = torch.autograd.grad(density.log_prob(x).mean(), list(graph.parameters()))
        assert any(grad.abs().sum() > 0 for grad in grads)


def test_a_sample_without_gradients_has_a_density_with_gradients() -> None:
    """With torch's own cache the latents come back without a gradient, and nothing is trained."""
    graph = graph_of()
    base = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    density = TransformedDistribution(base, [graph.transform(torch.randn(3), cache_size=1).inv])
    x = density.sample((9,))
    parameters = list(graph.parameters())
    expected = torch.autograd.grad(ig.Flow(graph).given(density.transforms[0].inv._conditioned.rows[0]).log_prob(
        x.unsqueeze(1)).sum(), parameters)  # fmt: skip
    torch.testing.assert_close(torch.autograd.grad(density.log_prob(x).sum(), parameters), expected)


def test_pickles() -> None:
    transform = graph_of().transform(torch.randn(5, 3), cache_size=1)
    x = torch.randn(5, 1, 2, 2)
    other = pickle.loads(pickle.dumps(transform))
    torch.testing.assert_close(other(x), transform(x))


def two_inputs() -> ig.Graph:
    a, b = ig.InputNode(1, name="a"), ig.InputNode(1, name="b")
    return ig.Graph((a, b), ig.Node((a, b), ig.Concat))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: two_inputs().transform(), ig.GraphError, "2 inputs"),
        (lambda: graph_of().transform(torch.zeros(3), cache_size=2), ig.GraphError, "cache_size"),
        (lambda: graph_of().transform(), ig.InputTypeError, "missing"),
        (lambda: graph_of().transform(torch.zeros(3))(torch.zeros(4)), ig.ShapeError, "event_shape"),
        (lambda: graph_of().transform(torch.zeros(3)).forward_shape((2, 2)), ig.ShapeError, "expected"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_inference_mode() -> None:
    transform = graph_of().transform(torch.randn(5, 3), cache_size=1)
    with torch.inference_mode():
        x = torch.randn(5, 1, 2, 2)
        y: Tensor = transform(x)
        torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), transform._conditioned.forward((x,))[1])
