"""Affine coupling of one side, scale and shift per channel, and a permutation, in few passes over memory.

A rotation stays outside: its product with the scales would add large terms that cancel where data have a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.affine_gradient import soft_clamp_backward
from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.numerics.soft_clamp import Activation, soft_clamp_scaled
from invgraph.shapes import Tensors

Formula = Callable[..., tuple[Tensor, Tensor]]


class AffineBlockKernel(NamedTuple):
    """``y = P (gain * (x_1 exp(s) + t, x_2) + shift)``, with s and t from parameters times the damping.

    Attributes:
        formula: The same as :meth:`run` but for P, in operations that autograd differentiates to any order.
        clamp: Bound of s.
        activation: Kind of the clamp.
        damping: Factor on the parameters.
        sizes: Channels of x_1 and of x_2.
        orders: The channels that the permutation P and its inverse pick; empty if P is 1.
    """

    formula: Formula
    clamp: float
    activation: Activation
    damping: float
    sizes: list[int]
    orders: Tensors

    def run(self, first: Tensor, second: Tensor, params: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and the log-determinant of the coupling.

        Arguments:
            first: ``(B, C_1, ...)``, apart from the second part, so that gradients of the two are never padded.
            second: ``(B, C_2, ...)``.
            params: ``(B, 2, C_1, ...)``.
            gain: ``(C, ...)``, with axes of size one.
            shift: The same.
        """
        values = first, second, params, gain, shift
        if needs_grad(*values):
            return _AffineBlock.apply(self, *values)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(*values)[:2]

    def evaluate(
        self, first: Tensor, second: Tensor, params: Tensor, gain: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the log-determinant, and s."""
        raw, t = params.unbind(1)
        s = soft_clamp_scaled(raw, self.damping, self.clamp, self.activation)
        u = first.new_empty((first.shape[0], sum(self.sizes), *first.shape[2:]))
        here, there = torch.split_with_sizes(u, self.sizes, dim=1)
        if self.damping == 1:
            torch.addcmul(t, first, s.exp(), out=here)
        else:
            torch.mul(first, s.exp(), out=here).add_(t, alpha=self.damping)
        log_det = s.flatten(1).sum(1)
        gains = torch.split_with_sizes(gain, self.sizes)
        here.mul_(gains[0])
        torch.mul(second, gains[1], out=there)
        u.add_(shift)
        return u.index_select(1, self.orders[0]) if self.orders else u, log_det, s

    def backward(
        self,
        values: Sequence[Tensor],
        s: Tensor,
        grad_outputs: tuple[Tensor, Tensor],
        *,
        gain_wanted: bool,
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of both parts, ``params``, ``gain`` and ``shift``.

        Arguments:
            values: Both parts, ``params``, ``gain`` and ``shift``.
            s: The clamped log-scales.
            grad_outputs: The gradients of y and of the log-determinant.
            gain_wanted: True if the gradient of ``gain`` is needed.
        """
        first, second, params, gain, _ = values
        y_grad = grad_outputs[0].index_select(1, self.orders[1]) if self.orders else grad_outputs[0]
        shift_grad = y_grad.sum((0, *range(2, y_grad.ndim))).view_as(gain)
        u_grad = y_grad.mul_(gain) if self.orders else y_grad * gain
        first_part, second_part = torch.split_with_sizes(u_grad, self.sizes, dim=1)
        raw, t = params.unbind(1)
        params_grad = torch.empty_like(params)
        raw_grad, t_grad = params_grad.unbind(1)
        scale = s.exp()
        first_grad = first_part * scale
        torch.mul(first_grad, first, out=raw_grad)
        gain_grad = None
        if gain_wanted:
            axes = (0, *range(2, first.ndim))
            own = raw_grad.sum(axes) + self.damping * torch.mul(first_part, t, out=scale).sum(axes)
            sums = torch.cat((own, (second_part * second).sum(axes))).view_as(gain)
            gain_grad = sums / gain.clamp_min(torch.finfo(gain.dtype).tiny)  # these sums have the gain as a factor
        torch.mul(first_part, self.damping, out=t_grad)
        raw_grad.add_(grad_outputs[1].view(-1, *(1,) * (first.ndim - 1)))
        soft_clamp_backward(raw_grad, raw, s, self.clamp, self.activation, factor=self.damping, out=raw_grad)
        return first_grad, second_part, params_grad, gain_grad, shift_grad

    def permuted_formula(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as :meth:`run`, in operations that autograd differentiates to any order."""
        y, log_det = self.formula(*values)
        return y.index_select(1, self.orders[0]) if self.orders else y, log_det


class _AffineBlock(torch.autograd.Function):
    """Keeps what comes in and the clamped scales alone; autograd keeps, and fills, five times as much."""

    @staticmethod
    def forward(ctx: Any, kernel: AffineBlockKernel, *values: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, s = kernel.evaluate(*values)
        ctx.kernel = kernel
        ctx.save_for_backward(*values, s, *kernel.orders)  # which notices if they are overwritten meanwhile
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *values, s = ctx.saved_tensors[:6]
        if is_first_order(*grad_outputs):
            return None, *ctx.kernel.backward(values, s, grad_outputs, gain_wanted=ctx.needs_input_grad[4])
        return None, *differentiate(ctx.kernel.permuted_formula, values, grad_outputs)
