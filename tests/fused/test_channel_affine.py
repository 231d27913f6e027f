"""Scale and shift per channel: gradients as of plain operations, to any order, and only where they are needed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invgraph.fused.channel_affine import scale_and_shift, shift_and_scale_back


def values(recorded: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=recorded)
    log_scale, shift = (torch.randn(3, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return x, log_scale, shift


@pytest.mark.parametrize("function", [scale_and_shift, shift_and_scale_back])
def test_first_and_second_derivatives(function: object) -> None:
    assert callable(function)
    assert torch.autograd.gradcheck(function, values())
    assert torch.autograd.gradgradcheck(function, values())


def test_data_without_a_gradient_get_none() -> None:
    found = []
    for recorded in (True, False):
        x, *parameters = values(recorded)
        scale_and_shift(x, *parameters).pow(3).sum().backward()
        assert (x.grad is not None) is recorded
        found.append([parameter.grad for parameter in parameters])
    torch.testing.assert_close(*found)


def test_a_large_shift_leaves_the_gradient_of_the_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand(800, 1, generator=generator) + 0.5, torch.rand(800, 1, generator=generator)
    log_scale, shift = torch.zeros(1, requires_grad=True), torch.full((1,), 1e5, requires_grad=True)
    (scale_and_shift(x, log_scale, shift) * weight).sum().backward()
    assert log_scale.grad is not None
    assert log_scale.grad.item() == pytest.approx((x * weight).sum().item(), rel=1e-3)
