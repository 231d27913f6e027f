"""The volume-preserving affine transform of GIN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invgraph.numerics.soft_clamp import Activation, require_clamp, soft_clamp
from invgraph.transforms.transform import Unbounded


@dataclass(frozen=True)
class VolumePreserving(Unbounded):
    r"""Scale and shift each element, with log scales that sum to zero over the sample (GIN).

    .. math:: y = x \exp(s_\text{clamp} - \bar s_\text{clamp}) + t

    where the bar is the mean over all elements of the sample.

    Log-det:
        0.

    Arguments:
        clamp: Bound alpha of the log scale before the mean is subtracted. Default: 1.9.
        activation: Soft clamp; see :class:`~invgraph.Affine`. Default: ``"atan"``.

    References:
        P. Sorrenson, C. Rother, U. Koethe, "Disentanglement by Nonlinear ICA with General Incompressible-flow
        Networks (GIN)", 2020, https://arxiv.org/abs/2001.04872

    Example:
        >>> import torch, invgraph as ig
        >>> y, log_det = ig.VolumePreserving().forward(torch.ones(1, 2), torch.ones(1, 2, 2))
        >>> y, log_det
        (tensor([[2., 2.]]), tensor([0.]))
    """

    pointwise: ClassVar[bool] = False  # the mean couples all elements of a sample

    clamp: float = 1.9
    activation: Activation = "atan"

    def __post_init__(self) -> None:
        self._set(clamp=require_clamp("VolumePreserving", self.clamp, self.activation))

    @property
    def params_per_element(self) -> int:
        return 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._log_scale(params)
        return torch.addcmul(t, x, torch.exp(s)), x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._log_scale(params)
        return (y - t) * torch.exp(-s), y.new_zeros(y.shape[0])

    def _log_scale(self, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        return s - s.mean(dim=tuple(range(1, s.ndim)), keepdim=True), t
