"""The arithmetic of the affine transform, with a backward pass that touches memory as seldom as it can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invgraph.recorded import alone, eager, recorded
from invgraph.transforms.clamp import Activation, soft_clamp, through_clamp
from invgraph.transforms.transform import per_sample


def scale_and_shift(
    x: Tensor, params: Tensor, clamp: float, activation: Activation, inverse: bool
) -> tuple[Tensor, Tensor]:
    """``x exp(s) + t``, or ``(x - t) / exp(s)``, and the log-determinant per sample; s and t are the two params."""
    if not eager():
        return _arithmetic(x, params, clamp, activation, inverse)[:2]
    if recorded(x, params):
        return _ScaleAndShift.apply(x, params, clamp, activation, inverse)  # type: ignore[no-untyped-call, no-any-return]
    raw, t = params.unbind(1)
    s = soft_clamp(raw, clamp, activation)
    log_det = per_sample(s)
    scale = s.exp_()
    if inverse:
        return torch.sub(x, t).div_(scale), log_det.neg_()
    return torch.addcmul(t, x, scale, out=scale), log_det


def _arithmetic(
    x: Tensor, params: Tensor, clamp: float, activation: Activation, inverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Result and log-determinant, and of what they are made: the scale and its logarithm."""
    raw, t = params.unbind(1)
    s = soft_clamp(raw, clamp, activation)
    scale = torch.exp(s)
    if inverse:
        return (x - t) / scale, -per_sample(s), scale, s
    return torch.addcmul(t, x, scale), per_sample(s), scale, s


class _ScaleAndShift(torch.autograd.Function):
    """Derived by hand: five passes over the numbers on the way back, where autograd takes fifteen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, params: Tensor, clamp: float, activation: Activation, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        y, log_det, scale, s = _arithmetic(x, params, clamp, activation, inverse)
        ctx.settings = clamp, activation, inverse
        ctx.save_for_backward(x, params, y if inverse else None, scale, None if activation == "atan" else s)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, y_slope: Tensor, log_det_slope: Tensor) -> tuple[Tensor | None, ...]:
        x, params, y, scale, s = ctx.saved_tensors
        clamp, activation, inverse = ctx.settings
        if torch.is_grad_enabled():  # differentiated in turn: what depends on the inputs must show it
            y, _, scale, s = _arithmetic(x, params, clamp, activation, inverse)
        found = (
            torch.empty_like(params) if alone(y_slope, log_det_slope) else None
        )  # filled, not stacked: two passes less
        raw_place, t_place = (None, None) if found is None else found.unbind(1)
        raw = params.select(1, 0)
        log_det_slope = log_det_slope.view(-1, *(1,) * (raw.ndim - 1))
        if inverse:
            x_slope = y_slope / scale
            t_slope = torch.neg(x_slope, out=t_place)
            s_slope = torch.addcmul(-log_det_slope, y_slope, y, value=-1, out=raw_place)
        else:
            x_slope = y_slope * scale
            t_slope = y_slope if t_place is None else t_place.copy_(y_slope)
            s_slope = torch.addcmul(log_det_slope, x_slope, x, out=raw_place)
        raw_slope = through_clamp(s_slope, raw, s, clamp, activation, out=raw_place)
        return x_slope, torch.stack((raw_slope, t_slope), 1) if found is None else found, None, None, None
