"""Convolutions that keep the spatial size, with a faster path for few output channels."""

from __future__ import annotations

from torch import Tensor, nn

from invgraph.core.known_shape import shapes_of_base
from invgraph.fused.convolution import prefers_shifted_sum, shifted_sum
from invgraph.fused.in_place import returns_fresh


class _SameSize(nn.Module):
    """Mixin of convolutions with zero padding of half a kernel and no stride."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if prefers_shifted_sum(x, weight, bias):
            return shifted_sum(x, weight, bias)
        return super()._conv_forward(x, weight, bias)  # type: ignore[misc, no-any-return]


@shapes_of_base
@returns_fresh
class Conv1d(_SameSize, nn.Conv1d):
    """Convolution of signals."""


@shapes_of_base
@returns_fresh
class Conv2d(_SameSize, nn.Conv2d):
    """Convolution of images."""


@shapes_of_base
@returns_fresh
class Conv3d(_SameSize, nn.Conv3d):
    """Convolution of volumes."""


CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
