"""The arithmetic of the affine transform, with a backward pass that touches memory as seldom as it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.dispatch import alone, derived, eager, recorded
from invgraph.numerics.soft_clamp import Activation, soft_clamp, through_clamp
from invgraph.transforms.transform import per_sample


class ScaleAndShift(NamedTuple):
    """``x exp(s) + t``, or its inverse ``(x - t) / exp(s)``; s, clamped, and t are the two parameters of a number."""

    clamp: float
    activation: Activation
    inverse: bool

    @property
    def scales(self) -> int:
        """How many tensors :meth:`evaluate` keeps."""
        return 1 if self.activation == "atan" else 2

    def opposite(self) -> ScaleAndShift:
        """The other direction."""
        return ScaleAndShift(self.clamp, self.activation, not self.inverse)

    def plain(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Result and log-determinant per sample, in operations that autograd differentiates to any order."""
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        scale = torch.exp(s)
        if self.inverse:
            return (x - t) / scale, -per_sample(s)
        return torch.addcmul(t, x, scale), per_sample(s)

    def evaluate(self, x: Tensor, params: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Result, log-determinant per sample, and what :meth:`pull` asks for; few passes over few tensors."""
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        log_det = per_sample(s)
        scales = [s.exp_()] if self.scales == 1 else [s.exp(), s]
        if self.inverse:
            y, log_det = torch.sub(x, t, out=out).div_(scales[0]), log_det.neg_()
        else:
            y = torch.addcmul(t, x, scales[0], out=out)
        return y, log_det, scales

    def pull(
        self,
        x: Tensor,
        params: Tensor,
        y: Tensor | None,
        scales: Sequence[Tensor],
        slopes: tuple[Tensor, Tensor],
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Gradients of ``x`` (in ``out``, which may be that of the result) and of the parameters, in place."""
        y_slope, log_det_slope = slopes
        scale, s = scales[0], scales[-1]
        found = torch.empty_like(params)
        raw_slope, t_slope = found.unbind(1)
        raw = params.select(1, 0)
        log_det_slope = log_det_slope.view(-1, *(1,) * (raw.ndim - 1))
        if self.inverse:
            torch.addcmul(-log_det_slope, y_slope, y, value=-1, out=raw_slope)  # type: ignore[arg-type]
            x_slope = torch.div(y_slope, scale, out=out)
            torch.neg(x_slope, out=t_slope)
        else:
            t_slope.copy_(y_slope)
            x_slope = torch.mul(y_slope, scale, out=out)
            torch.addcmul(log_det_slope, x_slope, x, out=raw_slope)
        through_clamp(raw_slope, raw, s, self.clamp, self.activation, out=raw_slope)
        return x_slope, found


def scale_and_shift(
    x: Tensor, params: Tensor, clamp: float, activation: Activation, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Result and log-determinant per sample of :class:`ScaleAndShift`, recorded as one step of the backward pass."""
    work = ScaleAndShift(clamp, activation, inverse)
    if not eager():
        return work.plain(x, params)
    if recorded(x, params):
        return _ScaleAndShift.apply(work, x, params)  # type: ignore[no-untyped-call, no-any-return]
    return work.evaluate(x, params)[:2]


class _ScaleAndShift(torch.autograd.Function):
    """Derived by hand: five passes over the numbers on the way back, where autograd takes fifteen."""

    @staticmethod
    def forward(ctx: Any, work: ScaleAndShift, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, scales = work.evaluate(x, params)
        ctx.work = work
        ctx.save_for_backward(x, params, y if work.inverse else None, *scales)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, params, y, *scales = ctx.saved_tensors
        if alone(*slopes):
            return None, *ctx.work.pull(x, params, y, scales, slopes)
        return None, *derived(ctx.work.plain, (x, params), slopes)
