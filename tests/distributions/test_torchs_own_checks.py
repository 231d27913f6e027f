"""The checks of torch's own test suite for distributions and transforms, as far as they apply to a flow.

Left out, because a flow has none of it: moments, entropy, ``cdf`` and ``icdf``, enumeration, arguments with
constraints, lazily converted logits, closed divergences, and comparisons with scipy.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import (
    Independent,
    Normal,
    TransformedDistribution,
    biject_to,
    constraints,
    kl_divergence,
)
from torch.distributions.transforms import (
    AffineTransform,
    CatTransform,
    ComposeTransform,
    IndependentTransform,
    SigmoidTransform,
    StackTransform,
    Transform,
)

import invgraph as ig
from invgraph.testing import randomize


def flow(kind: str) -> ig.Flow:
    x = ig.InputNode(2, name="x")
    c = ig.ConditionNode(3, name="c")
    h: Any = ig.Node(x, ig.Box, {"low": [0.0, -1.0], "high": [1.0, 3.0]}) if kind == "bounded" else x
    given = () if kind == "unconditional" else c
    for k in range(2):
        args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        h = ig.Node(ig.Node(h, ig.Permute, {"seed": k}), ig.Coupling, args, conditions=given)
    graph = ig.Graph(x, h, given)
    randomize(graph)
    return ig.Flow(graph)


KINDS = {
    "unconditional": lambda: flow("unconditional").given(),
    "one row": lambda: flow("conditional").given(torch.randn(3)),
    "a batch": lambda: flow("conditional").given(torch.randn(4, 1, 3)),
    "bounded": lambda: flow("bounded").given(torch.randn(4, 3)),
    "independent": lambda: Independent(flow("conditional").given(torch.randn(5, 4, 3)), 1),
    "transformed": lambda: TransformedDistribution(
        flow("conditional").given(torch.randn(4, 3)), [AffineTransform(1.0, 2.0, event_dim=1), SigmoidTransform()]
    ),
    "a graph as a transform": lambda: TransformedDistribution(
        Independent(Normal(torch.zeros(2), torch.ones(2)), 1), [flow("conditional").graph.transform(torch.randn(4, 3))]
    ),
}


@pytest.fixture(params=KINDS)
def density(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def test_attributes(density: Any) -> None:
    assert density.has_rsample
    assert not density.has_enumerate_support
    assert isinstance(repr(density), str)
    support = density.support
    assert (support.event_dim, support.is_discrete) == (len(density.event_shape), False)
    assert density.arg_constraints is not None
    for method in (density.cdf, density.icdf):
        with pytest.raises(NotImplementedError):
            method(density.sample())
    with pytest.raises(NotImplementedError):
        density.enumerate_support()


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3)])
def test_sample_shapes(density: Any, shape: Any) -> None:
    full = (*shape, *density.batch_shape, *density.event_shape)
    for size in (shape, list(shape), torch.Size(shape)):
        sample, grown = density.sample(size), density.rsample(size)
        assert sample.shape == grown.shape == full
        assert not sample.requires_grad
        assert grown.requires_grad
        assert density.log_prob(sample).shape == (*shape, *density.batch_shape)
        assert density.support.check(sample).all()


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_expanded(density: Any, shape: Any) -> None:
    wide = torch.Size((*shape, *density.batch_shape))
    expanded = density.expand(wide)
    assert (expanded.batch_shape, expanded.event_shape) == (wide, density.event_shape)
    sample = expanded.sample()
    assert sample.shape == (*wide, *density.event_shape)
    torch.testing.assert_close(expanded.log_prob(sample), density.log_prob(sample))
    assert expanded.expand((5, *wide)).rsample((2,)).shape == (2, 5, *wide, *density.event_shape)
    if 1 in density.batch_shape:
        larger = density.expand([3 if size == 1 else size for size in density.batch_shape])
        assert larger.log_prob(larger.sample()).shape == larger.batch_shape


def test_subclasses_are_expanded_to_their_class() -> None:
    class Own(ig.FlowDistribution):
        pass

    density = Own(flow("conditional"), torch.randn(4, 3))
    assert type(density.expand((2, 4))) is Own


def test_reinterpreted_batches() -> None:
    density = flow("conditional").given(torch.randn(5, 4, 3))
    x = density.sample((6,))
    for count in range(3):
        joint = Independent(density, count)
        own = tuple(range(-count, 0))
        assert (joint.batch_shape, joint.event_shape) == ((5, 4)[: 2 - count], (*(5, 4)[2 - count :], 2))
        expected = density.log_prob(x).sum(own) if own else density.log_prob(x)
        torch.testing.assert_close(joint.log_prob(x), expected)
        assert joint.expand((3, *joint.batch_shape)).sample().shape == (3, 5, 4, 2)


def test_real_numbers_are_mapped_to_the_support(density: Any) -> None:
    support = density.support
    if isinstance(support, constraints.independent):
        y = biject_to(support)(torch.randn(9, *density.batch_shape, *density.event_shape))
        assert support.check(y).all()
        assert density.log_prob(y).isfinite().all()


@pytest.mark.parametrize("gradients", [True, False])
def test_vectorized_over_values(density: Any, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        x = density.sample((6,))
        torch.testing.assert_close(torch.vmap(density.log_prob)(x), density.log_prob(x))


@pytest.mark.parametrize("gradients", [True, False])
def test_vectorized_over_conditions_and_parameters(gradients: bool) -> None:
    model, c, x = flow("conditional"), torch.randn(6, 3), torch.randn(6, 2)
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def transformed(c: Tensor, x: Tensor) -> Tensor:
        return TransformedDistribution(base, [model.graph.transform(c, cache_size=1).inv]).log_prob(x)

    with torch.set_grad_enabled(gradients):
        expected = model.log_prob(x, c)
        torch.testing.assert_close(torch.vmap(lambda c, x: model.given(c).log_prob(x))(c, x), expected)
        torch.testing.assert_close(torch.vmap(transformed)(c, x), expected)
        density = model.given(c)
        for _ in range(2):  # an ensemble of two members, then another one
            members = [flow("conditional") for _ in range(2)]
            parameters, buffers = torch.func.stack_module_state(members)  # type: ignore[arg-type]

            def score(own: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
                state = {**{f"flow.{k}": v for k, v in own.items()}, **{f"flow.{k}": v for k, v in buffers.items()}}
                return torch.func.functional_call(Scores(model, density), state, (x,))

            found = torch.vmap(score, in_dims=(0, 0, None))(parameters, buffers, x)
            torch.testing.assert_close(found, torch.stack([member.log_prob(x, c) for member in members]))


class Scores(torch.nn.Module):
    """A density as a module, so that its flow's parameters can be exchanged."""

    def __init__(self, model: ig.Flow, density: Any) -> None:
        super().__init__()
        self.flow, self.density = model, density

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.density.log_prob(x)
        return found


def test_gradients_of_functions(density: Any) -> None:
    x = density.sample()
    grad = torch.func.grad(lambda value: density.log_prob(value).sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(grad, torch.autograd.grad(density.log_prob(leaf).sum(), leaf)[0])


def test_saved_and_loaded(density: Any) -> None:
    x, stream = density.sample((3,)), io.BytesIO()
    torch.save(density, stream)
    stream.seek(0)
    torch.testing.assert_close(torch.load(stream, weights_only=False).log_prob(x), density.log_prob(x))


def test_divergences_have_no_closed_form() -> None:
    density = flow("conditional").given(torch.randn(3))
    with pytest.raises(NotImplementedError):
        kl_divergence(density, density)


@pytest.fixture(params=["cached", "not cached", "the inverse", "without conditions"])
def transform(request: pytest.FixtureRequest) -> Any:
    graph = flow("unconditional" if request.param == "without conditions" else "conditional").graph
    made = graph.transform(*(() if request.param == "without conditions" else (torch.randn(4, 5, 3),)))
    made = made.with_cache(1) if request.param == "cached" else made
    return made.inv if request.param == "the inverse" else made


def test_inverse_of_the_inverse_and_equality(transform: Any) -> None:
    assert transform.inv.inv is transform
    assert transform == transform
    assert transform.inv == transform.inv
    assert transform != transform.inv
    assert transform != flow("conditional").graph.transform(torch.randn(3))
    assert ComposeTransform([transform]) == ComposeTransform([transform])


@pytest.mark.parametrize("keeps", [False, True], ids=["torch", "as Pyro patches it"])
def test_cached_values_are_the_same_object(transform: Any, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if keeps:
        monkeypatch.setattr(Transform, "__getstate__", lambda self: dict(self.__dict__))
    cached = transform.with_cache(1)
    x = torch.randn(4, 5, 2, requires_grad=True)
    y = cached(x)
    assert cached(x) is y
    assert cached.inv(y) is x


@pytest.mark.parametrize("known", [True, False])
def test_forth_and_back(transform: Any, known: bool) -> None:
    x = torch.randn(4, 5, 2, requires_grad=True)
    y = transform(x)
    assert y.shape == transform.forward_shape(x.shape)
    back = transform.inv(y if known else y.clone())
    assert back.shape == transform.inverse_shape(y.shape)
    torch.testing.assert_close(back, x)


def test_log_determinants_are_those_of_the_jacobian(transform: Any) -> None:
    x = torch.randn(4, 5, 2)
    found = transform.log_abs_det_jacobian(x, transform(x))
    assert found.shape == (4, 5)
    full = jacobian(transform, x).reshape(20, 2, 20, 2)
    own = torch.stack([full[k, :, k] for k in range(20)])
    torch.testing.assert_close(found, torch.linalg.slogdet(own).logabsdet.view(4, 5), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(transform(x), x), -found)


def test_shapes_that_do_not_fit_are_refused(transform: Any) -> None:
    assert transform.forward_shape((7, 4, 5, 2)) == transform.inverse_shape((7, 4, 5, 2)) == (7, 4, 5, 2)
    for shape in ((), (3,), (4, 5, 3)):
        with pytest.raises(ValueError):
            transform.forward_shape(shape)
        with pytest.raises(ValueError):
            transform.inverse_shape(shape)


def test_within_torchs_other_transforms() -> None:
    one, other = (flow("conditional").graph.transform(torch.randn(3)) for _ in range(2))
    x = torch.randn(6, 2)
    apart: list[Tensor] = [one(x), other(x)]
    log_dets = [one.log_abs_det_jacobian(x, one(x)), other.log_abs_det_jacobian(x, other(x))]
    stacked = StackTransform([one, other], dim=0)
    both = torch.stack((x, x))
    torch.testing.assert_close(stacked(both), torch.stack(apart))
    torch.testing.assert_close(stacked.log_abs_det_jacobian(both, stacked(both)), torch.stack(log_dets))
    joined = CatTransform([one, other], dim=0, lengths=[6, 6])
    torch.testing.assert_close(joined(torch.cat((x, x))), torch.cat(apart))
    whole = IndependentTransform(one, 1)
    torch.testing.assert_close(whole.log_abs_det_jacobian(x, apart[0]), log_dets[0].sum(-1))
    chain = ComposeTransform([one, other.inv])
    torch.testing.assert_close(chain.inv(chain(x)), x)
    assert chain.domain.event_dim == 1
