"""Fixed hard permutation of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.arguments import require_seed
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, GraphError
from invgraph.fused.dispatch import eager, recorded
from invgraph.numerics.seeding import settled
from invgraph.shapes import Shape, Tensors


class _Gather(torch.autograd.Function):
    """Channels in another order; the gradient is gathered by the inverse order, not scattered (twice as fast)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.orders = order, inverse
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.orders
        return _gather(grad, inverse, order), None, None


class Permute(Invertible):
    r"""Put the channels in another, fixed order.

    .. math:: y_i = x_{\pi(i)}

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        0.

    Arguments:
        in_shapes: shape of the input.
        seed: of the random order; a generator of its own draws it, the global random state stays untouched.
        order: the order itself instead, a permutation of ``0 .. C-1``.

    Raises:
        GraphError: ``order`` is not a permutation of the channels.

    References:
        L. Ardizzone et al., "Analyzing Inverse Problems with Invertible Neural Networks", 2018,
        https://arxiv.org/abs/1808.04730

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Permute((3,), order=(2, 0, 1))((torch.tensor([[1.0, 2.0, 3.0]]),))
        >>> y
        tensor([[3., 1., 2.]])
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, seed: int = 0, order: Sequence[int] | None = None
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        channels = self.in_shapes[0][0]
        require_seed("Permute", seed)
        if order is None:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(channels, generator=generator, device="cpu")
        else:
            if not isinstance(order, Sequence) or not all(type(place) is int for place in order):
                raise ArgumentError("Permute", f"order: {type(order).__name__}", "order must be a tuple of ints")
            if sorted(order) != list(range(channels)):
                raise GraphError("Permute", f"order={list(order)}", f"not a permutation of 0..{channels - 1}")
            chosen = torch.tensor(list(order), device="cpu")
        self.register_buffer("order", settled(chosen))
        self.register_buffer("inverse_order", settled(chosen.argsort()))

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.in_shapes

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        y = _gather(xs[0], self.order, self.inverse_order)
        return (y,), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        x = _gather(ys[0], self.inverse_order, self.order)
        return (x,), x.new_zeros(x.shape[0])


def _gather(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    if eager() and recorded(x):
        return _Gather.apply(x, order, inverse)  # type: ignore[no-untyped-call, no-any-return]
    return x.index_select(1, order)
