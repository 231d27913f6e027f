"""The kernel of the rational quadratic spline: the results, gradients and digits of the plain formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig
from invgraph.fused.rational_quadratic import RationalQuadraticKernel

SPLINES = [
    ig.RationalQuadraticSpline(bins=1),
    ig.RationalQuadraticSpline(bins=2, bound=1.0),
    ig.RationalQuadraticSpline(bins=8, bound=5.0),
    ig.RationalQuadraticSpline(bins=5, min_width=1e-2, min_height=1e-4, min_slope=0.1),
]


def draw(spline: Any, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Elements inside, outside and at the bounds, and parameters."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    x.view(-1)[:3] = torch.tensor([spline.bound, 1e30, 0.0])
    size = (shape[0], spline.params_per_element, *shape[1:])
    return x.to(dtype), torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(6, 5), (1, 7), (3, 2, 4)])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("spline", SPLINES, ids=str)
def test_the_kernel_has_the_results_and_gradients_of_the_formula(
    spline: Any, inverse: bool, shape: tuple[int, ...]
) -> None:
    x, params = (leaf.requires_grad_() for leaf in draw(spline, *shape))
    before = x.detach().clone(), params.detach().clone()
    call = spline.inverse if inverse else spline.forward
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(size, generator=generator, dtype=torch.float64) for size in (shape, shape[:1])]
    found = []
    for fused in (True, False):
        with ig.fused(fused):
            outputs = call(x, params)
            with torch.no_grad():
                again = call(x, params)
        found.append([*outputs, *again, *torch.autograd.grad(outputs, (x, params), grads)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert torch.equal(x, before[0])
    assert torch.equal(params, before[1])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tails_are_exactly_the_identity(inverse: bool, dtype: torch.dtype) -> None:
    spline = ig.RationalQuadraticSpline(bins=8, bound=3.0)
    x = torch.tensor([[3.0001, -3.5, 1e30, -1e30]], dtype=dtype).t().requires_grad_()
    params = torch.randn(4, spline.params_per_element, 1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y, log_det = (spline.inverse if inverse else spline.forward)(x, params.requires_grad_())
    assert torch.equal(y, x)
    assert torch.equal(log_det, torch.zeros(4, dtype=dtype))
    x_grad, params_grad = torch.autograd.grad(y.sum() + 2 * log_det.sum(), (x, params))
    assert torch.equal(x_grad, torch.ones_like(x))
    assert not params_grad.any()


@pytest.mark.parametrize("inverse", [False, True])
def test_second_derivatives(inverse: bool) -> None:
    spline = SPLINES[1]
    x = torch.tensor([[0.3, -0.6, 2.0]], dtype=torch.float64).requires_grad_()
    params = draw(spline, 1, 3)[1].requires_grad_()
    call = spline.inverse if inverse else spline.forward
    assert torch.autograd.gradcheck(call, (x, params))
    assert torch.autograd.gradgradcheck(call, (x, params))


def test_shared_parameters_and_not_a_number() -> None:
    spline = SPLINES[2]
    params = draw(spline, 1, 3)[1].expand(4, -1, -1).requires_grad_()
    x = torch.tensor([[0.1, 0.2, 0.3]] * 4, dtype=torch.float64)
    x[1, 1] = torch.nan
    x[2, 2] = torch.inf
    y, log_det = spline.forward(x, params)
    assert y.isnan().sum() == 1
    assert y[2, 2] == torch.inf
    torch.testing.assert_close(y[0], y[3])
    with ig.fused(False):
        plain, plain_log_det = spline.forward(x, params)
    torch.testing.assert_close(y, plain, equal_nan=True)
    torch.testing.assert_close(log_det[[0, 2, 3]], plain_log_det[[0, 2, 3]])


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_round_trips_are_as_close_as_those_of_nflows(dtype: torch.dtype, scale: float, fused: bool) -> None:
    """Equal functions: nflows adds no constant to the raw slopes. The floor is the rounding of the result itself."""
    theirs = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    spline = ig.RationalQuadraticSpline(bins=8, bound=5.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 1, generator=generator, dtype=dtype) * 10 - 5
    params = torch.randn(20_000, 23, 1, generator=generator, dtype=dtype) * scale
    with ig.fused(fused), torch.no_grad():
        errors = (spline.inverse(spline.forward(x, params)[0], params)[0] - x).abs()
    raw = params.transpose(1, 2)
    shift = torch.tensor(1 - spline.min_slope, dtype=dtype).expm1().log()
    sizes = {"unnormalized_widths": raw[..., :8], "unnormalized_heights": raw[..., 8:16],
             "unnormalized_derivatives": raw[..., 16:] + shift, "tails": "linear", "tail_bound": 5.0}  # fmt: skip
    y, _ = theirs.unconstrained_rational_quadratic_spline(x, **sizes)
    back, _ = theirs.unconstrained_rational_quadratic_spline(y, inverse=True, **sizes)
    others = (back - x).abs()
    assert errors.mean() <= 1.1 * others.mean()
    assert errors.median() <= others.median()


def test_the_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    run = RationalQuadraticKernel.run
    monkeypatch.setattr(RationalQuadraticKernel, "run", lambda *args: calls.append(args[0].inverse) or run(*args))
    for spline, count in ((SPLINES[2], 2), (ig.RationalQuadraticSpline(circular=True), 0),
                          (ig.RationalQuadraticSpline(learned_bound=True), 0)):  # fmt: skip
        calls.clear()
        x, params = draw(spline, 2, 3)
        spline.forward(x, params)
        spline.inverse(x, params)
        assert len(calls) == count
