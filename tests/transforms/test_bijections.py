"""Transforms without knots: fixed maps onto intervals, mixtures of logistics, Bernstein polynomials."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from measures import assert_non_finite_numbers_pass
from torch import Tensor

import invgraph as ig

BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
FIXED = [ig.Sigmoid(), ig.Sigmoid(alpha=0.05), ig.Logit(), ig.Logit(alpha=0.05), ig.Softplus()]
ROOTS = [ig.MixtureCDF(), ig.MixtureCDF(components=1), ig.MixtureCDF(components=3, clamp=1.0), ig.Bernstein(),
         ig.Bernstein(degree=4), ig.Bernstein(degree=20, bound=10.0)]  # fmt: skip


def none(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], 0, *x.shape[1:])


def numbers(transform: Any, batch: int, size: int, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(batch, transform.params_per_element, size, generator=generator, dtype=torch.float64) * scale
    ).to(dtype)


def extremes(dtype: torch.dtype) -> Tensor:
    """Zeros, subnormals, the bounds of the polynomials and their neighbors, and huge numbers, with both signs."""
    tiny = torch.finfo(dtype).tiny
    parts = [torch.tensor([0.0, tiny, tiny / 4, 1e-8, 1.0, 50.0, 1e4, 1e30], dtype=dtype)]
    for bound in (3.0, 10.0):
        edge = torch.tensor(bound, dtype=dtype)
        parts.append(torch.stack([torch.nextafter(edge, edge * 0), edge, torch.nextafter(edge, edge * 2)]))
    positive = torch.cat(parts)
    return torch.cat((positive, -positive)).unsqueeze(0)


@BOTH
def test_log_dets_stay_finite_where_the_interval_ends(dtype: torch.dtype) -> None:
    x = extremes(dtype)
    for transform in (ig.Sigmoid(), ig.Softplus()):
        given = x.clone().requires_grad_()
        y, log_det = transform.forward(given, none(x))
        assert bool(y.isfinite().all())
        assert bool(log_det.isfinite().all())
        assert bool(torch.autograd.grad(y.sum() + log_det.sum(), given)[0].isfinite().all())
    # Far out, the slope of the sigmoid is e^-|x|: 1 - y would have lost it.
    far = torch.tensor([[700.0]], dtype=dtype)
    assert ig.Sigmoid().forward(far, none(far))[1].item() == pytest.approx(-700.0)
    assert ig.Sigmoid().forward(-far, none(far))[1].item() == pytest.approx(-700.0)
    assert ig.Softplus().forward(-far, none(far))[1].item() == pytest.approx(-700.0)


@BOTH
def test_logit_next_to_the_ends_of_its_domain(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    x = torch.stack([torch.nextafter(one, one * 0), one * torch.finfo(dtype).tiny, one / 2]).unsqueeze(0)
    y, log_det = ig.Logit().forward(x, none(x))
    assert bool(y.isfinite().all())
    assert bool(log_det.isfinite().all())
    assert torch.allclose(ig.Logit().inverse(y, none(y))[0], x, rtol=1e-5, atol=0)
    ends = torch.tensor([[0.0, 1.0]], dtype=dtype)
    for logit in (ig.Logit(), ig.Logit(alpha=0.05)):
        assert all(bool(value.isfinite().all()) for value in logit.forward(ends, none(ends)))


def test_softplus_is_exact_where_torchs_own_is_not() -> None:
    x = torch.tensor([[19.0, 21.0, 30.0, -30.0]], dtype=torch.float64)
    y, _ = ig.Softplus().forward(x, none(x))
    assert y.tolist()[0] == pytest.approx([math.log1p(math.exp(v)) for v in x.tolist()[0]], rel=1e-15)
    assert torch.allclose(ig.Softplus().inverse(y, none(y))[0], x, rtol=1e-14, atol=0)


@pytest.mark.parametrize("transform", FIXED, ids=str)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 3), (1, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_fixed_maps_at_every_rank(transform: Any, shape: tuple[int, ...], batch: int) -> None:
    layer = ig.Elementwise(shape, transform=transform)
    assert list(layer.parameters()) == []
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
    (y,), log_det = layer((x,))
    assert log_det.shape == (batch,)
    (back,), minus = layer.inverse((y,))
    assert torch.allclose(back, x, rtol=0, atol=1e-12)
    assert torch.allclose(minus, -log_det, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "values", "words"),
    [
        (ig.Logit(check_domain=True).forward, [0.5, -0.1], "outside the domain of 'logit': min -0.1"),
        (ig.Logit(check_domain=True).forward, [0.5, 1.5], "outside the domain of 'logit': max 1.5"),
        (ig.Logit(check_domain=True).forward, [0.0, 1.0], "outside the domain of 'logit': min 0, max 1"),
        (ig.Logit(alpha=0.1, check_domain=True).forward, [-0.2, 1.0], "between -0.125 and 1.125"),
        (ig.Sigmoid(check_domain=True).inverse, [math.nan, -0.1], "outside the domain of 'logit': min -0.1"),
        (ig.Softplus(check_domain=True).inverse, [1.0, -2.0], "outside the domain of 'inverse of softplus': min -2"),
    ],
)
def test_the_domain_is_checked_on_request(call: Any, values: list[float], words: str) -> None:
    x = torch.tensor([values])
    with pytest.raises(ig.NumericsError) as caught:
        call(x, none(x))
    assert words in str(caught.value)


def test_without_the_check_the_graph_says_where_numbers_outside_arrive() -> None:
    x = torch.tensor([[0.5, -0.1]])
    node = ig.InputNode(2, name="x")
    graph = ig.Graph(node, ig.Node(node, ig.Elementwise, {"transform": ig.Logit()}, name="to_reals"), check_finite=True)
    with pytest.raises(ig.NumericsError, match="to_reals"):
        graph(x)


BOUNDED: tuple[tuple[Any, list[float], list[float]], ...] = (
    (ig.Logit(), [0.0, 0.5, 1.0], [-0.1, 1.5, -1e-30, math.inf, -math.inf]),
    (ig.Logit(alpha=0.1), [-0.125, 0.0, 1.0, 1.125], [-0.13, 1.13, math.inf, -math.inf]),
    (ig.Sigmoid(alpha=0.1), [-0.125, 0.0, 1.0, 1.125], [-0.13, 1.13, math.inf, -math.inf]),
    (ig.Softplus(), [0.0, 1e-30, 5.0], [-1e-30, -3.0, -math.inf]),
)


@BOTH
@pytest.mark.parametrize(("transform", "inside", "outside"), BOUNDED, ids=str)
def test_the_density_outside_a_bounded_support_is_zero(
    transform: Any, inside: list[float], outside: list[float], dtype: torch.dtype
) -> None:
    """-inf for each sample with an element outside, finite for all others, through an affine layer that follows."""
    layer = ig.Elementwise((2,), transform=transform)
    x = ig.InputNode(2, name="x")
    h = ig.Node(x, layer if isinstance(transform, ig.Logit) else ig.Inverse(layer))
    h = ig.Node(h, ig.Elementwise, {"transform": ig.Affine()})
    flow = ig.Flow(ig.Graph(x, h)).to(dtype)
    values = torch.tensor([[value, 0.25] for value in (*inside, *outside)], dtype=dtype)
    log_prob = flow.log_prob(values)
    assert bool(log_prob[: len(inside)].isfinite().all())
    assert log_prob[len(inside) :].tolist() == [-math.inf] * len(outside)
    assert flow.log_prob(torch.full((1, 2), math.nan, dtype=dtype)).isnan().item()
    gradients = torch.autograd.grad(log_prob.nan_to_num().sum(), list(flow.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("transform", [ig.Logit(), ig.Logit(alpha=0.05)], ids=str)
def test_saturated_samples_of_a_flow_have_a_density(transform: ig.Logit) -> None:
    """A wide base: in float32 a tenth of the samples are rounded to 0 or 1."""
    x = ig.InputNode(1, name="x")
    base = torch.distributions.Normal(torch.zeros(1), torch.full((1,), 30.0))
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": transform})), base=base)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        samples = flow.sample(10_000)
    assert transform.alpha or bool((samples == 1).any())
    assert bool(flow.log_prob(samples).isfinite().all())


@pytest.mark.parametrize("alpha", [-0.1, 0.5, math.nan, math.inf])
@pytest.mark.parametrize("kind", [ig.Sigmoid, ig.Logit])
def test_alpha_is_checked(kind: Any, alpha: float) -> None:
    with pytest.raises(ig.GraphError, match="alpha must lie in"):
        kind(alpha=alpha)
    with pytest.raises(ig.ArgumentError, match="alpha must be a number"):
        kind(alpha="small")


def test_a_subnet_has_nothing_to_say_to_a_fixed_map() -> None:
    with pytest.raises(ig.GraphError, match="use it in Elementwise"):
        ig.Coupling((4,), transform=ig.Sigmoid(), subnet=ig.nets.MLP(hidden=4))
    with pytest.raises(ig.GraphError, match="use it in Elementwise"):
        ig.Elementwise((4,), ((2,),), transform=ig.Sigmoid(), subnet=ig.nets.MLP(hidden=4))


@pytest.mark.parametrize("transform", ROOTS, ids=str)
@BOTH
def test_roots_at_extreme_numbers(transform: Any, dtype: torch.dtype) -> None:
    x = extremes(dtype)
    params = numbers(transform, 1, x.shape[1], dtype, scale=0.3).requires_grad_()
    for call, other in ((transform.forward, transform.inverse), (transform.inverse, transform.forward)):
        given = x.clone().requires_grad_()
        y, log_det = call(given, params)
        assert bool(y.isfinite().all())
        assert bool(log_det.isfinite().all())
        for gradient in torch.autograd.grad(y.sum() + log_det.sum(), (given, params)):
            assert bool(gradient.isfinite().all())
        close = 1e-10 if dtype == torch.float64 else 1e-4
        assert torch.allclose(other(y, params)[0], x, rtol=close, atol=close)


@pytest.mark.parametrize("transform", ROOTS, ids=str)
def test_roots_are_found_to_the_rounding_of_the_dtype(transform: Any) -> None:
    y = torch.linspace(-9, 9, 301, dtype=torch.float64).unsqueeze(0)
    params = numbers(transform, 1, 1, scale=1.0).expand(1, transform.params_per_element, 301)
    for dtype, ulps in ((torch.float64, 64), (torch.float32, 64)):
        x, _ = transform.inverse(y.to(dtype), params.to(dtype))
        back, _ = transform.forward(x, params.to(dtype))
        assert ((back - y.to(dtype)).abs().max() / torch.finfo(dtype).eps).item() <= ulps * 9


@pytest.mark.parametrize("transform", ROOTS, ids=str)
def test_the_inverse_has_second_derivatives(transform: Any) -> None:
    y = torch.linspace(-2, 2, 4, dtype=torch.float64).unsqueeze(0).requires_grad_()
    params = numbers(transform, 1, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(transform.inverse, (y, params), fast_mode=True)


@pytest.mark.parametrize("transform", ROOTS, ids=str)
@BOTH
def test_non_finite_numbers_pass_through(transform: Any, dtype: torch.dtype) -> None:
    assert_non_finite_numbers_pass(transform, numbers(transform, 1, 4, dtype))


@pytest.mark.parametrize("transform", ROOTS, ids=str)
def test_parameters_of_zero_are_nearly_the_identity(transform: Any) -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64).unsqueeze(0)
    y, _ = transform.forward(x, torch.zeros(1, transform.params_per_element, 401, dtype=torch.float64))
    exact = isinstance(transform, ig.Bernstein) or transform.components == 1
    assert (y - x).abs().max().item() <= (1e-13 if exact else math.log(math.cosh(1.0)))


def test_far_apart_components_leave_a_finite_log_det() -> None:
    mixture = ig.MixtureCDF(components=2)
    params = torch.zeros(1, 8, 3, dtype=torch.float64)
    params[:, 2], params[:, 3] = -300.0, 300.0  # between them the distribution function is flat: e^-300
    x = torch.tensor([[-300.0, 0.0, 300.0]], dtype=torch.float64)
    y, log_det = mixture.forward(x, params)
    assert bool(y.isfinite().all())
    assert log_det.item() == pytest.approx(-300, abs=10)


@BOTH
def test_the_log_det_of_a_mixture_is_right_however_far_out(dtype: torch.dtype) -> None:
    mixture = ig.MixtureCDF(components=4)
    params = numbers(mixture, 1, 1, dtype)
    for sign in (-1, 1):
        slopes = [mixture.forward(torch.tensor([[sign * x]], dtype=dtype), params)[1].item() for x in (1e4, 1e8, 1e30)]
        assert slopes == pytest.approx([slopes[0]] * 3, abs=1e-6)  # the tails are straight: the widest component's


@pytest.mark.parametrize(
    "transform",
    [ig.MixtureCDF(components=2), *(pytest.param(t, marks=pytest.mark.slow) for t in (ig.Bernstein(degree=4), *FIXED))],
    ids=str,
)
def test_compiles_without_a_graph_break(transform: Any) -> None:
    x = torch.tensor([[0.3, 0.6]])
    params = numbers(transform, 1, 2, torch.float32)
    for call in (transform.forward, transform.inverse):
        torch._dynamo.reset()
        compiled = torch.compile(call, fullgraph=True, backend="eager")
        assert all(torch.equal(a, b) for a, b in zip(compiled(x, params), call(x, params), strict=True))


@pytest.mark.parametrize(
    ("kind", "args", "error", "words"),
    [
        (ig.MixtureCDF, {"components": 0}, ig.GraphError, "components must be at least 1"),
        (ig.MixtureCDF, {"components": 2.5}, ig.ArgumentError, "components must be an int"),
        (ig.MixtureCDF, {"clamp": 0}, ig.GraphError, "clamp must be positive"),
        (ig.Bernstein, {"degree": 3}, ig.GraphError, "degree must be at least 4"),
        (ig.Bernstein, {"degree": "high"}, ig.ArgumentError, "degree must be an int"),
        (ig.Bernstein, {"bound": -1}, ig.GraphError, "bound must be positive"),
        (ig.Bernstein, {"degree": 10, "min_step": 0.1}, ig.GraphError, "min_step * degree = 1 must be below 1"),
    ],
)
def test_bad_arguments_are_refused(kind: Any, args: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        kind(**args)
    assert words in str(caught.value)


@pytest.mark.parametrize("size", [10.0, 1e3, 1e8, 1e15])
def test_far_out_the_slope_of_a_mixture_is_that_of_its_scale(size: float) -> None:
    mixture = ig.MixtureCDF(components=3)
    params = numbers(mixture, 2, 1)
    params[:, 6:9] = 0.0  # all scales are 1
    params[:, 9] = 0.0
    y, log_det = mixture.forward(torch.tensor([[size], [-size]], dtype=torch.float64), params)
    assert float(log_det.abs().max()) <= (1e-3 if size == 10.0 else 1e-12)
    assert float((y.abs() / size - 1).abs().max()) <= 30 / size


@pytest.mark.parametrize("activation", ["atan", "tanh"])
def test_parameters_of_another_precision_are_not_rounded_to_that_of_the_data(activation: Any) -> None:
    transform = ig.Affine(activation=activation)
    x, params = torch.randn(3, 4, requires_grad=True), torch.randn(3, 2, 4, dtype=torch.float64)
    log_dets = []
    for enabled in (True, False):
        with ig.fused(enabled):
            log_dets.append(transform.forward(x, params)[1])
    assert log_dets[0].dtype == torch.float64
    torch.testing.assert_close(*log_dets, rtol=0, atol=1e-14)
