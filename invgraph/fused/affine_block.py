"""Affine coupling of one side, scale and shift per channel, and a permutation, in few passes over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.dispatch import differentiate, is_first_order, needs_grad
from invgraph.numerics.soft_clamp import Activation, soft_clamp, soft_clamp_backward

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

    def run(self, x: Tensor, params: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and the log-determinant of the coupling.

        Arguments:
            x: ``(B, C, ...)``.
            params: ``(B, 2, C_1, ...)``.
            gain: ``(C, ...)``, with axes of size one.
            shift: The same.
        """
        if needs_grad(x, params, gain, shift):
            return _AffineBlock.apply(self, x, params, gain, shift)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(x, params, gain, shift)[:2]

    def evaluate(self, x: Tensor, params: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the log-determinant, and s."""
        (first, second), (gains, shifts) = x.split(self.sizes, dim=1), self._halves(gain, shift)
        s = self._clamped(params)
        y = torch.empty_like(x)
        if self.places is None:
            here, there = y.split(self.sizes, dim=1)
            self._couple(first, s.exp(), params, out=here).mul_(gains[0]).add_(shifts[0])
            torch.mul(second, gains[1], out=there).add_(shifts[1])
        else:
            y.index_copy_(1, self.places[0], self._couple(first, s.exp(), params).mul_(gains[0]).add_(shifts[0]))
            y.index_copy_(1, self.places[1], torch.mul(second, gains[1]).add_(shifts[1]))
        return y, s.flatten(1).sum(1), s

    def backward(
        self, x: Tensor, params: Tensor, gain: Tensor, s: Tensor, grad_outputs: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the gradients of ``x``, ``params``, ``gain`` and ``shift``."""
        (first, second), (gains, _) = x.split(self.sizes, dim=1), self._halves(gain, gain)
        y_grad, log_det_grad = grad_outputs
        if self.places is None:
            grads = y_grad.split(self.sizes, dim=1)
        else:
            grads = tuple(y_grad.index_select(1, places) for places in self.places)
        scale = s.exp()
        axes = (0, *range(2, x.ndim))
        coupled = self._couple(first, scale, params)
        gain_grad = torch.cat(((grads[0] * coupled).sum(axes), (grads[1] * second).sum(axes))).view_as(gain)
        shift_grad = torch.cat([grad.sum(axes) for grad in grads]).view_as(gain)
        x_grad, params_grad = torch.empty_like(x), torch.empty_like(params)
        first_grad, second_grad = x_grad.split(self.sizes, dim=1)
        raw_grad, t_grad = params_grad.unbind(1)
        torch.mul(grads[1], gains[1], out=second_grad)
        inner = torch.mul(grads[0], gains[0], out=coupled)
        torch.mul(inner, self.damping, out=t_grad)
        torch.mul(inner, scale, out=first_grad)
        torch.addcmul(log_det_grad.view(-1, *(1,) * (x.ndim - 1)), first_grad, first, out=raw_grad)
        raw = params.select(1, 0)
        raw = raw if self.damping == 1 else raw * self.damping
        soft_clamp_backward(raw_grad, raw, s, self.clamp, self.activation, out=raw_grad)
        if self.damping != 1:
            raw_grad.mul_(self.damping)
        return x_grad, params_grad, gain_grad, shift_grad

    def _clamped(self, params: Tensor) -> Tensor:
        raw = params.select(1, 0)
        return soft_clamp(raw if self.damping == 1 else raw * self.damping, self.clamp, self.activation)

    def _couple(self, x: Tensor, scale: Tensor, params: Tensor, out: Tensor | None = None) -> Tensor:
        t = params.select(1, 1)
        if self.damping == 1:
            return torch.addcmul(t, x, scale, out=out)
        return torch.mul(x, scale, out=out).add_(t, alpha=self.damping)

    def _halves(self, *values: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        return tuple(value.split(self.sizes, dim=0) for value in values)


class _AffineBlock(torch.autograd.Function):
    """Keeps what comes in and the clamped scales alone; autograd keeps, and fills, five times as much."""

    @staticmethod
    def forward(
        ctx: Any, kernel: AffineBlockKernel, x: Tensor, params: Tensor, gain: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, log_det, s = kernel.evaluate(x, params, gain, shift)
        ctx.kernel = kernel
        ctx.save_for_backward(x, params, gain, shift, s)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, params, gain, shift, s = ctx.saved_tensors
        if is_first_order(*grad_outputs):
            return None, *ctx.kernel.backward(x, params, gain, s, grad_outputs)
        return None, *differentiate(ctx.kernel.formula, (x, params, gain, shift), grad_outputs)
