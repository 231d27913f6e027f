"""Affine coupling of one side, scale and shift per channel, and a permutation, in few passes over memory.

A rotation stays outside: its product with the scales would add large terms that cancel where data have a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.affine_gradient import soft_clamp_backward
from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.numerics.soft_clamp import Activation, clamp_watchers, soft_clamp_scaled
from invgraph.shapes import Tensors

Formula = Callable[..., tuple[Tensor, Tensor]]
_BLOCK_ELEMENTS = 1 << 17
"""Elements of the data that a thread works on at a time."""


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
        y = first.new_empty((first.shape[0], sum(self.sizes), *first.shape[2:]))
        s = first.new_empty(first.shape)
        gains = torch.split_with_sizes(gain, self.sizes)
        for rows in _blocks_of_rows(y):
            raw, t = params[rows].unbind(1)
            scale = soft_clamp_scaled(raw, self.damping, self.clamp, self.activation, out=s[rows]).exp()
            u = torch.empty_like(y[rows]) if self.orders else y[rows]
            here, there = torch.split_with_sizes(u, self.sizes, dim=1)
            if self.damping == 1:
                torch.addcmul(t, first[rows], scale, out=here)
            else:
                torch.mul(first[rows], scale, out=here).add_(t, alpha=self.damping)
            here.mul_(gains[0])
            torch.mul(second[rows], gains[1], out=there)
            u.add_(shift)
            if self.orders:
                torch.index_select(u, 1, self.orders[0], out=y[rows])
        for watch in clamp_watchers:
            watch(s, self.clamp)
        return y, s.flatten(1).sum(1), s

    def backward(
        self, values: Sequence[Tensor], s: Tensor, grad_outputs: tuple[Tensor, Tensor], *, gain_wanted: bool
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of both parts, ``params``, ``gain`` and ``shift``.

        Arguments:
            values: Both parts, ``params``, ``gain`` and ``shift``.
            s: The clamped log-scales.
            grad_outputs: The gradients of y and of the log-determinant.
            gain_wanted: True if the gradient of ``gain`` is needed.
        """
        first, second, params, gain, _ = values
        y_grad, log_det_grad = grad_outputs[0], grad_outputs[1].view(-1, *(1,) * (first.ndim - 1))
        x_grad, params_grad = y_grad.new_empty(y_grad.shape), params.new_empty(params.shape)
        axes = (0, *range(2, first.ndim))
        sums: list[Tensor] = []
        shift_sums: list[Tensor] = []
        for rows in _blocks_of_rows(x_grad):
            u_grad, block_grad = x_grad[rows], y_grad[rows]
            if self.orders:
                block_grad = torch.index_select(block_grad, 1, self.orders[1], out=u_grad)
            shift_sums.append(block_grad.sum(axes))
            torch.mul(block_grad, gain, out=u_grad)
            first_grad, second_grad = torch.split_with_sizes(u_grad, self.sizes, dim=1)
            raw, t = params[rows].unbind(1)
            raw_grad, t_grad = params_grad[rows].unbind(1)
            torch.mul(first_grad, self.damping, out=t_grad)
            if gain_wanted:
                shifted = (first_grad * t).sum(axes)
            first_grad.mul_(s[rows].exp())
            torch.mul(first_grad, first[rows], out=raw_grad)
            if gain_wanted:
                own = raw_grad.sum(axes).add_(shifted, alpha=self.damping)
                sums.append(torch.cat((own, (second_grad * second[rows]).sum(axes))))
            raw_grad.add_(log_det_grad[rows])
            soft_clamp_backward(raw_grad, raw, s[rows], self.clamp, self.activation, factor=self.damping, out=raw_grad)
        shift_grad, gain_grad = torch.stack(shift_sums).sum(0).view_as(gain), None
        if gain_wanted:  # these sums have the gain as a factor
            gain_grad = torch.stack(sums).sum(0).view_as(gain) / gain.clamp_min(torch.finfo(gain.dtype).tiny)
        return *torch.split_with_sizes(x_grad, self.sizes, dim=1), params_grad, gain_grad, shift_grad

    def permuted_formula(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as :meth:`run`, in operations that autograd differentiates to any order."""
        y, log_det = self.formula(*values)
        return y.index_select(1, self.orders[0]) if self.orders else y, log_det


def _blocks_of_rows(x: Tensor) -> Iterator[slice]:
    """Yield slices of rows that are small enough for what is made of them to stay in the caches of a CPU's threads."""
    step = max(1, torch.get_num_threads() * _BLOCK_ELEMENTS // max(1, math.prod(x.shape[1:])))
    if x.device.type != "cpu":
        step = max(1, x.shape[0])
    for start in range(0, max(1, x.shape[0]), step):  # one even where there is no row
        yield slice(start, start + step)


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
