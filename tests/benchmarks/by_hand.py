"""The MNIST model with each coupling as one autograd function: as close to the matrix products as eager torch comes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_SLOPE = 2 / math.pi


class ByHand(nn.Module):
    """No module is called, no gradient is left to autograd, nothing is general: it bounds an eager step."""

    def __init__(self, depth: int, width: int, classes: int, hidden: int) -> None:
        super().__init__()
        half = width // 2
        shapes = ((hidden, half), (hidden, classes), (hidden,), (width, hidden), (width,))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(shape) * 0.01) for _ in range(2 * depth) for shape in shapes
        )
        self.orders = [torch.randperm(width) for _ in range(depth)]

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        weights, log_det = list(self.weights), x.new_zeros(x.shape[0])
        for k, order in enumerate(self.orders):
            x, more = _Block.apply(_Gather.apply(x, order), c, *weights[10 * k : 10 * k + 10])
            log_det = log_det + more
        return x, log_det


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.order = order
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope.index_select(1, ctx.order.argsort()), None


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        y = torch.empty_like(x)
        first, second = slice(0, half), slice(half, None)
        kept, log_det = [], x.new_zeros(x.shape[0])
        for side, (written, read) in enumerate(((first, x[:, second]), (second, y[:, first]))):
            data, given, bias, last, shift = weights[5 * side : 5 * side + 5]
            h = torch.addmm(bias, c, given.t()).addmm_(read, data.t()).relu_()
            params = torch.addmm(shift, h, last.t())
            s = params[:, first].atan().mul_(_SLOPE)
            log_det += s.sum(1)
            scale = s.exp_()
            torch.addcmul(params[:, second], x[:, written], scale, out=y[:, written])
            kept += [h, params, scale]
        ctx.save_for_backward(x, y, c, *weights, *kept)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, y_slope: Tensor, log_det_slope: Tensor) -> tuple[Tensor | None, ...]:
        x, y, c, *rest = ctx.saved_tensors
        weights, kept = rest[:10], rest[10:]
        half = x.shape[1] // 2
        first, second = slice(0, half), slice(half, None)
        x_slope = torch.empty_like(x)
        slopes: dict[int, list[Tensor]] = {}
        slope = y_slope[:, second]
        for side, written, read in ((1, second, y[:, first]), (0, first, x[:, second])):
            data, _, _, last, _ = weights[5 * side : 5 * side + 5]
            h, params, scale = kept[3 * side : 3 * side + 3]
            torch.mul(slope, scale, out=x_slope[:, written])
            found = torch.empty_like(params)
            torch.addcmul(log_det_slope.view(-1, 1), x_slope[:, written], x[:, written], out=found[:, first])
            raw = params[:, first]
            found[:, first].div_(torch.addcmul(raw.new_full((), 1 / _SLOPE), raw, raw, value=1 / _SLOPE))
            found[:, second].copy_(slope)
            hidden = torch.ops.aten.threshold_backward(found @ last, h, 0)
            slopes[side] = [hidden.t() @ read, hidden.t() @ c, hidden.sum(0), found.t() @ h, found.sum(0)]
            if side == 1:
                slope = torch.addmm(y_slope[:, first], hidden, data)
            else:
                x_slope[:, second].addmm_(hidden, data)
        return x_slope, None, *slopes[0], *slopes[1]
