"""FrEIA's elementwise arithmetic as transforms of native layers, so that weights can be moved to native graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invgraph.freia.affine import affine, as_clamp, clamped_log_slope
from invgraph.transforms.transform import Transform

__all__ = ["Affine", "VolumePreserving"]


@dataclass(frozen=True)
class _Clamped(Transform):
    """A scale and shift whose log scale is clamped as in FrEIA."""

    clamp: float = 2.0
    activation: str | Callable[[Tensor], Tensor] = "ATAN"

    def __post_init__(self) -> None:
        as_clamp(type(self).__name__, self.activation)

    @property
    def params_per_element(self) -> int:
        return 2

    def _log_slope(self, raw: Tensor, rev: bool) -> Tensor:
        return clamped_log_slope(self.clamp, as_clamp(type(self).__name__, self.activation), raw, rev)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = params.unbind(1)
        return affine(x, self._log_slope(raw, rev=False), shift, rev=False)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = params.unbind(1)
        return affine(y, self._log_slope(raw, rev=True), shift, rev=True)


class Affine(_Clamped):
    r"""Scale and shift with FrEIA's clamp, :math:`0.636\,a \arctan(s)`, for ``invgraph.Coupling``.

    With it, ``Coupling`` computes what FrEIA's ``GLOWCouplingBlock`` does, and with ``separate=True`` what
    ``RNVPCouplingBlock`` does.

    Arguments:
        clamp: Bound a of the log scale.
        activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).

    Example:
        >>> import torch, invgraph as ig
        >>> transform = ig.freia.transforms.Affine(clamp=1.0)
        >>> block = ig.Coupling((4,), transform=transform, subnet=ig.nets.MLP(hidden=8))
        >>> block((torch.ones(1, 4),))[1]
        tensor([0.], grad_fn=<AddBackward0>)
    """


class VolumePreserving(_Clamped):
    """Scale and shift of FrEIA's ``GINCouplingBlock``: each position's log scales have mean zero over the channels.

    Arguments:
        clamp: Bound of the log scale before the mean is subtracted.
        activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
    """

    pointwise: ClassVar[bool] = False

    def _log_slope(self, raw: Tensor, rev: bool) -> Tensor:
        log_slope = super()._log_slope(raw, rev)
        return log_slope - log_slope.mean(1, keepdim=True)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x, params)[0], x.new_zeros(x.shape[0])

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return super().inverse(y, params)[0], y.new_zeros(y.shape[0])
