"""Splines at the edges of their domain, on their knots, far outside, and with bad arguments."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from measures import assert_non_finite_numbers_pass
from torch import Tensor

import invgraph as ig

BOUND = 3.0
KINDS = (ig.LinearSpline, ig.QuadraticSpline, ig.CubicSpline, ig.RationalQuadraticSpline)
SPLINES = [
    kind(bins=5, bound=BOUND, circular=circular, learned_bound=learned)
    for kind, circular, learned in itertools.product(KINDS, (False, True), (False, True))
]
DTYPES = (torch.float64, torch.float32)
every = pytest.mark.parametrize("spline", SPLINES, ids=str)
both = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def numbers(spline: Any, batch: int, size: int, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    params = torch.randn(batch, spline.params_per_element, size, generator=generator, dtype=torch.float64) * scale
    if spline.learned_bound:
        params[:, -1] = 0  # the bound as declared
    return params.to(dtype)


def knots(spline: Any, params: Tensor) -> Tensor:
    """The ends of the pieces, as the spline itself sees them."""
    from invgraph.transforms.spline import edges, partition

    return edges(partition(params[:, : spline.bins], spline.min_width), BOUND)


def edge_cases(dtype: torch.dtype) -> Tensor:
    """The bounds, the floats next to them, zeros, subnormals and huge numbers, with both signs."""
    bound = torch.tensor(BOUND, dtype=dtype)
    tiny = torch.finfo(dtype).tiny
    up, down = torch.nextafter(bound, bound + 1), torch.nextafter(bound, bound - 1)
    least = torch.nextafter(torch.zeros((), dtype=dtype), bound)
    positive = torch.stack((bound, up, down, 0 * bound, least, bound * 0 + tiny / 4, bound * 0 + 1e30))
    return torch.cat((positive, -positive)).unsqueeze(0)


@every
@both
def test_edges_of_the_domain(spline: Any, dtype: torch.dtype) -> None:
    x = edge_cases(dtype)
    # Gentle slopes: where one is 1e-3, half a unit in the last place of y is as many as a thousand in x.
    params = numbers(spline, 1, x.shape[1], dtype, scale=0.3).requires_grad_()
    for call in (spline.forward, spline.inverse):
        given = x.clone().requires_grad_()
        y, log_det = call(given, params)
        assert bool(y.isfinite().all())
        assert bool(log_det.isfinite().all())
        gradients = torch.autograd.grad(y.sum() + log_det.sum(), (given, params))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert bool((gradients[0] > 0).all()) or log_det.requires_grad
        back, _ = (spline.inverse if call == spline.forward else spline.forward)(y, params)
        close = 1e-10 if dtype == torch.float64 else 1e-4
        assert torch.allclose(back, x, rtol=close, atol=close)


@every
def test_continuous_across_the_bounds(spline: Any) -> None:
    x = edge_cases(torch.float64)[:, [0, 1, 2, 7, 8, 9]]
    params = numbers(spline, 1, 1).expand(1, spline.params_per_element, x.shape[1])
    for call in (spline.forward, spline.inverse):
        y, _ = call(x, params)
        assert torch.allclose(y, x, rtol=0, atol=1e-11)  # the ends of the box stay where they are


@every
def test_gradients_are_finite_on_the_knots(spline: Any) -> None:
    params = numbers(spline, 1, 1)
    x = knots(spline, params)[0].transpose(0, 1)
    params = params.expand(1, spline.params_per_element, x.shape[1]).clone().requires_grad_()
    given = x.clone().requires_grad_()
    y, log_det = spline.forward(given, params)
    for value, call in ((x, spline.forward), (y.detach(), spline.inverse)):
        point = value.clone().requires_grad_()
        out, log_det = call(point, params)
        for gradient in torch.autograd.grad(out.sum() + log_det.sum(), (point, params)):
            assert bool(gradient.isfinite().all())
    left, _ = spline.forward(torch.nextafter(x, x - 1), params)
    right, _ = spline.forward(torch.nextafter(x, x + 1), params)
    assert torch.allclose(left, y, rtol=0, atol=1e-12)
    assert torch.allclose(right, y, rtol=0, atol=1e-12)


@every
def test_smooth_splines_have_a_continuous_log_det(spline: Any) -> None:
    if isinstance(spline, ig.LinearSpline):
        return  # its log-det jumps, as documented
    params = numbers(spline, 1, 1)
    x = knots(spline, params)[0].transpose(0, 1).reshape(-1, 1)
    if isinstance(spline, ig.CubicSpline) and not spline.circular:
        x = x[1:-1]  # at the ends its slope is that of the tails only where the piece allows it
    params = params.expand(x.shape[0], spline.params_per_element, 1)
    left, right = (spline.forward(x + step, params)[1] for step in (-1e-10, 1e-10))
    assert torch.allclose(left, right, rtol=0, atol=1e-6)


@every
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_increases_strictly_and_keeps_the_box(spline: Any, scale: float) -> None:
    params = numbers(spline, 1, 1, scale=scale).expand(1, spline.params_per_element, 4001)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64).unsqueeze(0)
    for call in (spline.forward, spline.inverse):
        y, _ = call(x, params)
        assert bool((y.diff() > 0).all())
        assert torch.equal(y.abs() <= BOUND + 1e-12, x.abs() <= BOUND + 1e-12)


@every
def test_starts_at_the_identity(spline: Any) -> None:
    x = torch.linspace(-7, 7, 101, dtype=torch.float64).unsqueeze(0)
    y, log_det = spline.forward(x, torch.zeros(1, spline.params_per_element, 101, dtype=torch.float64))
    assert torch.allclose(y, x, rtol=0, atol=1e-14)
    assert log_det.abs().item() < 1e-12


@every
@both
def test_non_finite_numbers_pass_through(spline: Any, dtype: torch.dtype) -> None:
    assert_non_finite_numbers_pass(spline, numbers(spline, 1, 4, dtype))


@every
@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(spline: Any, batch: int) -> None:
    x = torch.zeros(batch, 2, 3, 3)
    params = torch.zeros(batch, spline.params_per_element, 2, 3, 3)
    for call in (spline.forward, spline.inverse):
        y, log_det = call(x, params)
        assert y.shape == x.shape
        assert log_det.shape == (batch,)


@every
@pytest.mark.parametrize("size", [1e3, -1e3, 1e30])
def test_extreme_parameters_stay_finite(spline: Any, size: float) -> None:
    x = torch.linspace(-2.9, 2.9, 25, dtype=torch.float32).unsqueeze(0)
    params = (numbers(spline, 1, 25, torch.float32).sign() * size).requires_grad_()
    for call in (spline.forward, spline.inverse):
        y, log_det = call(x, params)
        (gradient,) = torch.autograd.grad(y.sum() + log_det.sum(), params)
        assert all(bool(t.isfinite().all()) for t in (y, log_det, gradient))


@pytest.mark.parametrize("kind", KINDS)
def test_a_circular_spline_is_a_map_of_the_circle(kind: Any) -> None:
    spline = kind(bins=5, bound=math.pi, circular=True)
    x = torch.linspace(-math.pi, math.pi, 33, dtype=torch.float64)[:-1].unsqueeze(0)
    params = numbers(spline, 1, 1).expand(1, spline.params_per_element, 32)
    for call in (spline.forward, spline.inverse):
        y, log_det = call(x, params)
        for turns in (-3, 1, 40):
            z, other = call(x + 2 * math.pi * turns, params)
            assert torch.allclose(z, y + 2 * math.pi * turns, rtol=0, atol=1e-11)
            assert torch.allclose(other, log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_learned_bound_scales_the_spline(kind: Any) -> None:
    plain, learned = kind(bins=5, bound=2.0), kind(bins=5, bound=1.0, learned_bound=True)
    raw = math.tan(math.log(2) * math.pi / 2)  # where the soft clamp gives log 2
    params = numbers(plain, 1, 9)
    wider = torch.cat((params, torch.full_like(params[:, :1], raw)), dim=1)
    x = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64).unsqueeze(0)
    for name in ("forward", "inverse"):
        (y, a), (z, b) = getattr(plain, name)(x, params), getattr(learned, name)(x, wider)
        assert torch.allclose(y, z, rtol=0, atol=1e-12)
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


# The fast suite compiles a layer of each kind: tests/graph/test_compile.py.
@pytest.mark.parametrize(
    "spline",
    [
        pytest.param(s, marks=pytest.mark.slow if s.circular != s.learned_bound else pytest.mark.nightly)
        for s in SPLINES
    ],
    ids=str,
)
def test_compiles_without_a_graph_break(spline: Any) -> None:
    x = edge_cases(torch.float32)
    params = numbers(spline, 1, x.shape[1], torch.float32)
    for call in (spline.forward, spline.inverse):
        torch._dynamo.reset()  # the limit of recompilations is for one piece of code, shared by all splines
        compiled = torch.compile(call, fullgraph=True, backend="eager")
        for a, b in zip(compiled(x, params), call(x, params), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)  # a kernel rounds in another order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"bins": 0}, ig.GraphError, "bins must be at least 1"),
        ({"bins": 2.0}, ig.ArgumentError, "bins must be an int"),
        ({"bins": True}, ig.ArgumentError, "bins must be an int"),
        ({"bins": 10, "min_width": 0.1}, ig.GraphError, "min_width * bins = 1 must be below 1"),
        ({"bins": 10, "min_height": 0.2}, ig.GraphError, "min_height * bins = 2 must be below 1"),
        ({"min_width": 0.0}, ig.GraphError, "min_width must be positive"),
        ({"min_height": math.nan}, ig.GraphError, "min_height must be positive"),
        ({"min_width": "wide"}, ig.ArgumentError, "min_width must be a number"),
        ({"bound": 0}, ig.GraphError, "bound must be positive and finite"),
        ({"bound": math.inf}, ig.GraphError, "bound must be positive and finite"),
        ({"bound": None}, ig.ArgumentError, "bound must be a number"),
    ],
)
def test_bad_arguments_are_refused(kind: Any, args: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        kind(**args)
    assert words in str(caught.value)
    assert kind.__name__ in str(caught.value)


@pytest.mark.parametrize(("slope", "error"), [(0, ig.GraphError), (1.5, ig.GraphError), ("a", ig.ArgumentError)])
def test_the_least_slope_is_checked(slope: Any, error: Any) -> None:
    with pytest.raises(error, match="min_slope"):
        ig.RationalQuadraticSpline(min_slope=slope)


def test_a_knot_belongs_to_the_bin_on_its_right() -> None:
    spline = ig.LinearSpline(bins=2)
    params = torch.tensor([0.0, 0.0, 1.0, -1.0], dtype=torch.float64).view(1, 4, 1).expand(3, 4, 1)
    x = torch.tensor([[-1e-9], [0.0], [1e-9]], dtype=torch.float64)  # widths are equal: a knot at 0
    left, at, right = spline.forward(x, params)[1]
    assert at == right
    assert at != left


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_knots_begin_at_exactly_0_and_end_at_exactly_1(dtype: torch.dtype) -> None:
    from invgraph.transforms.spline import edges, partition

    raw = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    found = edges(partition(raw, 1e-3), 0.5) + 0.5
    assert bool((found[:, 0] == 0).all() and (found[:, -1] == 1).all())


def test_cubic_pieces_are_cubic_and_smooth() -> None:
    spline = ig.CubicSpline(bins=4)
    params = numbers(spline, 1, 1)
    inner = knots(spline, params)[0, :, 0]
    for low, high in itertools.pairwise(inner.tolist()):
        x = torch.linspace(low + 1e-9, high - 1e-9, 6, dtype=torch.float64)[:, None]
        y, _ = spline.forward(x, params.expand(6, -1, 1))
        powers = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None] ** torch.arange(4)
        assert torch.linalg.lstsq(powers, y).solution.isfinite().all()
        residual = y - powers @ torch.linalg.lstsq(powers, y).solution
        assert residual.abs().max() < 1e-10


def test_steep_neighbors_do_not_bend_a_cubic_piece_back() -> None:
    spline = ig.CubicSpline(bins=6)
    generator = torch.Generator().manual_seed(0)
    params = 8 * torch.randn(200, spline.params_per_element, 1, dtype=torch.float64, generator=generator)
    x = torch.linspace(-3.2, 3.2, 2001, dtype=torch.float64)
    y, log_det = spline.forward(x.repeat(200)[:, None], params.repeat_interleave(2001, 0))
    assert (y.view(200, -1).diff(dim=1) > 0).all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("spline", [one for one in SPLINES if isinstance(one, ig.RationalQuadraticSpline)], ids=str)
def test_what_is_compiled_has_the_results_and_gradients_of_the_formula(spline: Any, inverse: bool) -> None:
    """Compiled, the pieces are found one after the other, in one loop over the elements."""
    x = torch.cat((edge_cases(torch.float64), torch.linspace(-3, 3, 50, dtype=torch.float64)[None]), dim=1)
    params = numbers(spline, 1, x.shape[1])
    knot = knots(spline, params)[0, 1, 20]
    x[0, 20] = knot
    call = spline.inverse if inverse else spline.forward
    found = []
    for run in (call, torch.compile(call, backend="eager", fullgraph=True)):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, params)]
        with ig.fused(False):
            y, log_det = run(*leaves)
        found.append([y, log_det, *torch.autograd.grad(y.sin().sum() + log_det.sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_an_empty_batch_has_gradients() -> None:
    spline = ig.RationalQuadraticSpline(bins=4)
    x, params = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, spline.params_per_element, 3, requires_grad=True)
    y, log_det = spline.forward(x, params)
    grads = torch.autograd.grad(y.sum() + log_det.sum(), (x, params))
    assert [grad.shape for grad in grads] == [x.shape, params.shape]
