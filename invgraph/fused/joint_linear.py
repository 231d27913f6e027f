"""A linear layer of data joined with conditions, whose backward pass leaves out what the conditions do not need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from invgraph.fused.autograd import differentiate, is_first_order
from invgraph.shapes import Tensors

_ENOUGH = 1 << 22
"""Multiplications that are left out, below which a function in Python costs more."""


def saves_products(x: Tensor, cs: Tensors, weight: Tensor) -> bool:
    """True if the data need a gradient, the conditions do not, and the gradient of these would take long."""
    if not x.requires_grad or not torch.is_grad_enabled() or any(c.requires_grad for c in cs):
        return False
    return x.shape[0] * sum([c.shape[1] for c in cs]) * weight.shape[0] >= _ENOUGH


def joint_linear(x: Tensor, weight: Tensor, bias: Tensor, cs: Tensors) -> Tensor:
    """Return a linear layer's value at the data joined with the conditions, ``(B, C_out)``.

    Arguments:
        x: The data, ``(B, C)``.
        weight: ``(C_out, C + C_c)``.
        bias: ``(C_out,)``.
        cs: The conditions, which need no gradient: ``(B, C_1)``, ``(B, C_2)``, ...
    """
    return _JointLinear.apply(x, weight, bias, *cs)  # type: ignore[no-untyped-call, no-any-return]


def _formula(x: Tensor, weight: Tensor, bias: Tensor, *cs: Tensor) -> tuple[Tensor]:
    return (functional.linear(torch.cat((x, *cs), dim=1), weight, bias),)


class _JointLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *cs: Tensor) -> Tensor:
        joined = torch.cat((x, *cs), dim=1)
        ctx.sizes = [part.shape[1] for part in (x, *cs)]
        ctx.save_for_backward(joined, x, weight, bias)  # conditions may be overwritten meanwhile
        return functional.linear(joined, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        joined, x, weight, bias = ctx.saved_tensors
        if not is_first_order(*grad_outputs):
            cs = joined.split(ctx.sizes, dim=1)[1:]
            return differentiate(_formula, (x, weight, bias, *cs), grad_outputs)
        (grad,) = grad_outputs
        x_wanted, weight_wanted, bias_wanted, *conditions_wanted = ctx.needs_input_grad
        x_grad = grad @ weight[:, : x.shape[1]] if x_wanted else None
        weight_grad = grad.t() @ joined if weight_wanted else None
        return x_grad, weight_grad, grad.sum(0) if bias_wanted else None, *(None for _ in conditions_wanted)
