"""Learned positive factor on each element or channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.shapes import Shape, Tensors, positions


class LearnedScaling(Invertible):
    r"""Multiply each element by a learned positive factor.

    .. math:: y = x \exp(s)

    For a scale that depends on conditions, or comes with a shift, see :class:`~invgraph.Elementwise`; for one that is
    initialized to normalize a batch, see :class:`~invgraph.ActNorm`.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        Sum of s over all elements, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        per_channel: True for one factor per channel instead of one per element. Default: False.

    References:
        L. Dinh, D. Krueger, Y. Bengio, "NICE: Non-linear Independent Components Estimation", 2014,
        https://arxiv.org/abs/1410.8516

    Example:
        >>> import torch, invgraph as ig
        >>> scaling = ig.LearnedScaling((3,))
        >>> _ = torch.nn.init.constant_(scaling.log_scale, 1.0)
        >>> (y,), log_det = scaling((torch.ones(1, 3),))
        >>> y.detach(), log_det.detach()
        (tensor([[2.7183, 2.7183, 2.7183]]), tensor([3.]))
    """

    range_kind = "any"
    fixed_size_reason = None

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, per_channel: bool = False) -> None:
        super().__init__(in_shapes, cond_shapes)
        channels, *sizes = self.in_shapes[0]
        self.per_channel = per_channel = require_flag("LearnedScaling", "per_channel", per_channel)
        self.log_scale = nn.Parameter(torch.zeros(channels, *(1 if per_channel else size for size in sizes)))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if not self.per_channel:
            given = f"input of shape {self.in_shapes[0]} instead of {before[0]}"
            advice = "it has a factor for each element: per_channel=True gives one for each channel"
            raise GraphError(self.label, given, f"its size can't change: {advice}")

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return (xs[0] * self.log_scale.exp(),), self._log_det(xs[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (ys[0] * torch.exp(-self.log_scale),), -self._log_det(ys[0])

    def _log_det(self, x: Tensor) -> Tensor:
        repeats = positions(self.in_shapes[0]) if self.per_channel else 1
        return (self.log_scale.sum() * repeats).expand(x.shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, per_channel={self.per_channel}"
