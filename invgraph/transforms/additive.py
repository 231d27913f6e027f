"""The additive transform of NICE."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from invgraph.transforms.transform import Unbounded


@dataclass(frozen=True)
class Additive(Unbounded):
    r"""Shift each element.

    .. math:: y = x + t

    Log-det:
        0.

    References:
        L. Dinh, D. Krueger, Y. Bengio, "NICE: Non-linear Independent Components Estimation", 2014,
        https://arxiv.org/abs/1410.8516

    Example:
        >>> import torch, invgraph as ig
        >>> ig.Additive().forward(torch.ones(1, 2), torch.full((1, 1, 2), 3.0))
        (tensor([[4., 4.]]), tensor([0.]))
    """

    @property
    def params_per_element(self) -> int:
        return 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[:, 0], x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return y - params[:, 0], y.new_zeros(y.shape[0])
