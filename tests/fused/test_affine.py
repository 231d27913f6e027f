"""The affine transform's backward pass, which is written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import invgraph as ig


def scale_and_shift(x: Tensor, params: Tensor, clamp: float, activation: Any, inverse: bool) -> Any:
    transform = ig.Affine(clamp, activation)
    return (transform.inverse if inverse else transform.forward)(x, params)


SETTINGS = [(a, act, inv) for a in (1.0, 1.7) for act in ("atan", "tanh", "sigmoid") for inv in (False, True)]


def values(seed: int = 0, shape: tuple[int, ...] = (4, 2)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    params = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, params


@pytest.mark.parametrize("settings", SETTINGS)
def test_first_and_second_derivatives_are_right(settings: Any) -> None:
    def call(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return scale_and_shift(x, params, *settings)

    assert gradcheck(call, values(shape=(2,)), check_batched_grad=True)
    assert gradgradcheck(call, values(shape=(2,)))


@pytest.mark.parametrize("settings", SETTINGS)
def test_all_three_ways_agree(settings: Any) -> None:
    x, params = values()
    with ig.fused(False):
        plain = scale_and_shift(x, params, *settings)
    by_hand = scale_and_shift(x, params, *settings)
    in_place = scale_and_shift(x.detach(), params.detach(), *settings)
    for one, other, third in zip(plain, by_hand, in_place, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    slopes = tuple(torch.ones_like(y) for y in plain)
    for exact, own in zip(*(torch.autograd.grad(ys, (x, params), slopes) for ys in (plain, by_hand)), strict=True):
        torch.testing.assert_close(own, exact, rtol=1e-13, atol=1e-13)


def test_parameters_that_are_expanded_get_the_sum_of_their_gradients() -> None:
    x, params = values()
    assert gradcheck(
        lambda row: scale_and_shift(x, row.expand_as(params), 1.0, "atan", False), params[:1].detach().requires_grad_()
    )


def test_parameters_made_of_the_data_have_their_gradient_once() -> None:
    x, _ = values()

    def slope(create_graph: bool) -> Tensor:
        y, log_det = scale_and_shift(x, torch.stack((x.sin(), x * x), 1), 1.0, "atan", False)
        return torch.autograd.grad(y.sum() + log_det.sum(), x, create_graph=create_graph)[0]

    torch.testing.assert_close(slope(True), slope(False), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("activation", ["atan", "tanh"])
def test_shifts_are_not_kept(activation: Any) -> None:
    x, params = values()
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = scale_and_shift(x, params, 1.7, activation, False)
    assert results[0].requires_grad
    assert sum(kept.values()) == 3 * x.untyped_storage().nbytes()  # the data, the scales and their logarithms


def test_only_one_result_needs_to_be_used() -> None:
    x, params = values()
    y, log_det = scale_and_shift(x, params, 1.0, "atan", False)
    (unused, used) = torch.autograd.grad(log_det.sum(), (x, params), retain_graph=True)
    assert not unused.any()
    assert used.any()
    assert all(slope.any() for slope in torch.autograd.grad(y.sum(), (x, params)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own call
@pytest.mark.parametrize("recorded", [False, True])
def test_forward_mode_differentiates_it(recorded: bool) -> None:
    affine, permute = ig.Affine(), ig.Permute((4, 2))
    x, params = (value.detach().requires_grad_(recorded) for value in values())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        y, _ = affine.forward(dual, params)
        (z,), _ = permute((y,))
        rate = forward_ad.unpack_dual(z).tangent
    assert rate is not None
    exact = torch.func.jvp(lambda x: affine.forward(x, params)[0], (x.detach(),), (torch.ones_like(x),))[1]
    torch.testing.assert_close(rate, permute((exact,))[0][0])


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_a_scale_at_its_bound_has_no_gradient(activation: Any) -> None:
    for end in (400.0, -400.0):
        for clamp in (7.0, 1.9, 0.3):
            params = torch.tensor([[[end], [0.0]]], requires_grad=True)
            scale_and_shift(torch.full((1, 1), 1e4), params, clamp, activation, False)[0].sum().backward()
            assert params.grad is not None
            assert torch.equal(params.grad, torch.tensor([[[0.0], [1.0]]]))
