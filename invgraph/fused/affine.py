"""The affine transform with a backward pass derived by hand, which touches memory as seldom as it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.dispatch import differentiate, is_first_order, needs_grad
from invgraph.numerics.soft_clamp import Activation, soft_clamp, soft_clamp_backward

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class AffineKernel(NamedTuple):
    """``x exp(s) + t``, or its inverse ``(x - t) / exp(s)``; s (clamped) and t are the two parameters per element.

    Attributes:
        formula: The same, in operations that autograd differentiates to any order.
        clamp: Bound of s.
        activation: Kind of the clamp.
        inverse: True for the inverse.
    """

    formula: Formula
    clamp: float
    activation: Activation
    inverse: bool

    def scales(self) -> int:
        """Return the number of tensors that :meth:`evaluate` keeps."""
        return 1 if self.activation == "atan" else 2

    def run(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return result and log-determinant per sample, recorded as one step of the backward pass."""
        if needs_grad(x, params):
            return _Affine.apply(self, x, params)  # type: ignore[no-untyped-call, no-any-return]
        return self.evaluate(x, params)[:2]

    def evaluate(self, x: Tensor, params: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return result, log-determinant per sample, and what :meth:`backward` needs, in few passes over memory."""
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        log_det = s.flatten(1).sum(1)
        scales = [s.exp_()] if self.activation == "atan" else [s.exp(), s]
        if self.inverse:
            y, log_det = torch.sub(x, t, out=out).div_(scales[0]), log_det.neg_()
        else:
            y = torch.addcmul(t, x, scales[0], out=out)
        return y, log_det, scales

    def invert(self, y: Tensor, params: Tensor, out: Tensor) -> list[Tensor]:
        """Write the ``x`` that ``y`` was made of, and return what :meth:`backward` needs."""
        return self._replace(inverse=not self.inverse).evaluate(y, params, out=out)[2]

    def backward(
        self,
        x: Tensor,
        raw: Tensor,
        y: Tensor | None,
        scales: Sequence[Tensor],
        grad_outputs: tuple[Tensor, Tensor],
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``x`` (in ``out``, which may be that of the result) and of the parameters.

        Arguments:
            x: What was transformed.
            raw: The first of its two parameters, from which the scales were made.
            y: The result; of the inverse alone.
            scales: The scales.
            grad_outputs: The gradients of the result and of its log-determinant.
            out: Where to write the gradient of ``x``.
        """
        y_grad, log_det_grad = grad_outputs
        scale, s = scales[0], scales[-1]
        params_grad = raw.new_empty((raw.shape[0], 2, *raw.shape[1:]))
        raw_grad, t_grad = params_grad.unbind(1)
        log_det_grad = log_det_grad.view(-1, *(1,) * (raw.ndim - 1))
        if self.inverse:
            torch.addcmul(-log_det_grad, y_grad, y, value=-1, out=raw_grad)  # type: ignore[arg-type]
            x_grad = torch.div(y_grad, scale, out=out)
            torch.neg(x_grad, out=t_grad)
        else:
            t_grad.copy_(y_grad)
            x_grad = torch.mul(y_grad, scale, out=out)
            torch.addcmul(log_det_grad, x_grad, x, out=raw_grad)
        soft_clamp_backward(raw_grad, raw, s, self.clamp, self.activation, out=raw_grad)
        return x_grad, params_grad


class _Affine(torch.autograd.Function):
    """Five passes over memory on the way back, where autograd takes fifteen."""

    @staticmethod
    def forward(ctx: Any, kernel: AffineKernel, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, scales = kernel.evaluate(x, params)
        ctx.kernel = kernel
        ctx.save_for_backward(x, params, y if kernel.inverse else None, *scales)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, params, y, *scales = ctx.saved_tensors
        if is_first_order(*grad_outputs):
            return None, *ctx.kernel.backward(x, params.select(1, 0), y, scales, grad_outputs)
        return None, *differentiate(ctx.kernel.formula, (x, params), grad_outputs)
