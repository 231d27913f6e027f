"""Affine coupling of one side, scale and shift per channel, and a permutation, in few passes over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.affine_gradient import soft_clamp_backward
from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.numerics.soft_clamp import Activation, soft_clamp_scaled

Formula = Callable[..., tuple[Tensor, Tensor]]


class AffineBlockKernel(NamedTuple):
    """``y[order] = gain * (x_1 exp(s) + t, x_2) + shift``, with s and t from parameters times the damping.

    Attributes:
        formula: The same as :meth:`run`, in operations that autograd differentiates to any order.
        clamp: Bound of s.
        activation: Kind of the clamp.
        damping: Factor on the parameters.
        sizes: Channels of x_1 and of x_2.
        places: Channels of the output that hold those of x_1, and of x_2; None if their order stays.
    """

    formula: Formula
    clamp: float
    activation: Activation
    damping: float
    sizes: tuple[int, int]
    places: tuple[Tensor, Tensor] | None

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
        (gains, shifts), (raw, t) = self._halves(gain, shift), params.unbind(1)
        s = soft_clamp_scaled(raw, self.damping, self.clamp, self.activation)
        y = first.new_empty((first.shape[0], sum(self.sizes), *first.shape[2:]))
        scale = s.exp()
        if self.places is None:
            here, there = y.split(self.sizes, dim=1)
            self._couple(first, scale, t, out=here).mul_(gains[0]).add_(shifts[0])
            torch.mul(second, gains[1], out=there).add_(shifts[1])
        else:
            y.index_copy_(1, self.places[0], self._couple(first, scale, t, out=scale).mul_(gains[0]).add_(shifts[0]))
            room = scale if scale.shape == second.shape else None
            y.index_copy_(1, self.places[1], torch.mul(second, gains[1], out=room).add_(shifts[1]))
        return y, s.flatten(1).sum(1), s

    def backward(
        self,
        first: Tensor,
        second: Tensor,
        params: Tensor,
        gain: Tensor,
        s: Tensor,
        grad_outputs: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, ...]:
        """Return the gradients of both parts, ``params``, ``gain`` and ``shift``; each buffer serves several times."""
        (gains,), (raw, t) = self._halves(gain), params.unbind(1)
        y_grad, log_det_grad = grad_outputs
        if self.places is None:
            grads = y_grad.split(self.sizes, dim=1)
        else:
            grads = tuple(y_grad.index_select(1, places) for places in self.places)
        axes = (0, *range(2, first.ndim))
        shift_grad = torch.cat([grad.sum(axes) for grad in grads]).view_as(gain)
        second_grad = grads[1] * second
        scale = s.exp()
        first_grad = self._couple(first, scale, t).mul_(grads[0])
        gain_grad = torch.cat((first_grad.sum(axes), second_grad.sum(axes))).view_as(gain)
        torch.mul(grads[1], gains[1], out=second_grad)
        params_grad = torch.empty_like(params)
        raw_grad, t_grad = params_grad.unbind(1)
        torch.mul(grads[0], gains[0], out=t_grad)
        torch.mul(t_grad, scale, out=first_grad)
        torch.addcmul(log_det_grad.view(-1, *(1,) * (first.ndim - 1)), first_grad, first, out=raw_grad)
        if self.activation == "atan" and self.damping != 1:
            raw = torch.mul(raw, self.damping, out=scale)
        soft_clamp_backward(raw_grad, raw, s, self.clamp, self.activation, out=raw_grad)
        if self.damping != 1:
            params_grad.mul_(self.damping)
        return first_grad, second_grad, params_grad, gain_grad, shift_grad

    def _couple(self, x: Tensor, scale: Tensor, t: Tensor, out: Tensor | None = None) -> Tensor:
        if self.damping == 1:
            return torch.addcmul(t, x, scale, out=out)
        return torch.mul(x, scale, out=out).add_(t, alpha=self.damping)

    def _halves(self, *values: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        return tuple(value.split(self.sizes, dim=0) for value in values)


class _AffineBlock(torch.autograd.Function):
    """Keeps what comes in and the clamped scales alone; autograd keeps, and fills, five times as much."""

    @staticmethod
    def forward(ctx: Any, kernel: AffineBlockKernel, *values: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, s = kernel.evaluate(*values)
        ctx.kernel = kernel
        ctx.save_for_backward(*values, s)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *values, s = ctx.saved_tensors
        first, second, params, gain, _ = values
        if is_first_order(*grad_outputs):
            return None, *ctx.kernel.backward(first, second, params, gain, s, grad_outputs)
        return None, *differentiate(ctx.kernel.formula, values, grad_outputs)
