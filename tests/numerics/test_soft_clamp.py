"""Soft clamps against their formulas (paper, Eq. 7, and FrEIA's other two)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invgraph.numerics.soft_clamp import Activation, soft_clamp, soft_clamp_scaled


def formula(s: Tensor, alpha: float, activation: Activation) -> Tensor:
    if activation == "atan":
        return 2 * alpha / math.pi * torch.atan(s / alpha)
    if activation == "tanh":
        return alpha * torch.tanh(s / alpha)
    return alpha * (2 * torch.sigmoid(s / alpha) - 1)


@pytest.mark.parametrize("activation", ["atan", "tanh", "sigmoid"])
@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.9])
def test_it_is_its_formula_and_has_its_gradient(activation: Activation, alpha: float) -> None:
    s = torch.linspace(-20, 20, 101, dtype=torch.float64, requires_grad=True)
    found, expected = soft_clamp(s, alpha, activation), formula(s, alpha, activation)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    (grad,), (wanted,) = (torch.autograd.grad(y.sum(), s) for y in (found, expected))
    torch.testing.assert_close(grad, wanted, rtol=1e-12, atol=1e-13)
    scaled = soft_clamp_scaled(s.detach(), 0.3, alpha, activation, torch.empty_like(s))
    torch.testing.assert_close(scaled, formula(0.3 * s.detach(), alpha, activation), rtol=1e-13, atol=1e-13)
    assert s.detach().equal(torch.linspace(-20, 20, 101, dtype=torch.float64))
