"""FrEIA's layers that put elements elsewhere, or halve and double an image's size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.errors import ArgumentError, GraphError
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, no_log_jac, require_image
from invgraph.numerics.channels import mix
from invgraph.shapes import Shape

__all__ = ["Flatten", "HaarDownsampling", "HaarUpsampling", "IRevNetDownsampling", "IRevNetUpsampling", "Reshape"]

Result = tuple[tuple[Tensor], Any]


class _Down(OneInput):
    """Halve height and width, four times the channels."""

    def output_dims(self, input_dims: Any) -> Any:
        channels, height, width = require_image(self, input_dims)
        if height % 2 or width % 2:
            given = f"input of shape {(channels, height, width)}"
            raise GraphError(type(self).__name__, given, "height and width must be even: crop or pad the data first")
        return ((channels * 4, height // 2, width // 2),)


class _Up(OneInput):
    """Double height and width, a fourth of the channels."""

    def output_dims(self, input_dims: Any) -> Any:
        channels, height, width = require_image(self, input_dims)
        if channels % 4:
            given = f"input of shape {(channels, height, width)}"
            raise GraphError(type(self).__name__, given, "the number of channels must be divisible by 4")
        return ((channels // 4, height * 2, width * 2),)


def _to_patches(x: Tensor, by_place: bool) -> Tensor:
    """Return patches of 2 x 2 positions as ``(B, C, 4, H/2, W/2)``, or ``(B, 4, C, H/2, W/2)`` by place in the patch.

    This takes a third of the time of ``pixel_unshuffle``.
    """
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    order = (0, 3, 5, 1, 2, 4) if by_place else (0, 1, 3, 5, 2, 4)
    shape = (4, channels) if by_place else (channels, 4)
    return parts.permute(order).reshape(batch, *shape, height // 2, width // 2)


def _from_patches(y: Tensor, by_place: bool) -> Tensor:
    """Return the image of which :func:`_to_patches` made ``(B, 4 C, H/2, W/2)``.

    Rows are put together after columns: at once it takes half as long again.
    """
    batch, channels, height, width = y.shape
    shape = (2, 2, channels // 4) if by_place else (channels // 4, 2, 2)
    parts = y.reshape(batch, *shape, height, width)
    columns = torch.stack(parts.unbind(2 if by_place else 3), dim=-1)
    rows = columns.permute((0, 2, 3, 1, 4, 5) if by_place else (0, 1, 3, 2, 4, 5))
    return rows.reshape(batch, channels // 4, 2 * height, 2 * width)


def _squeeze(module: Any, x: Tensor, rev: bool, jac: bool) -> Result:
    """Move patches of 2 x 2 into the channels, or back; ``legacy_backend`` orders them by place, then by channel."""
    y = _from_patches(x, module.legacy_backend) if rev else _to_patches(x, module.legacy_backend).flatten(1, 2)
    return (y,), no_log_jac(y, jac)


def _set_squeeze(module: Any, channels: int, legacy_backend: bool) -> None:
    """Give a module the constant that checkpoints of FrEIA hold; it is not computed with."""
    module.legacy_backend = legacy_backend
    if not legacy_backend:
        kernel = torch.eye(4).reshape(4, 1, 2, 2).repeat(channels, 1, 1, 1)
        module.downsample_kernel = nn.Parameter(kernel, requires_grad=False)


class IRevNetDownsampling(_Down):
    """Move each patch of 2 x 2 positions into the channels.

    Arguments:
        dims_in: Shape of the image, in a list.
        dims_c: Not used.
        legacy_backend: Order the channels by place in the patch, then by channel.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dims_c: Any = None, legacy_backend: bool = False) -> None:
        super().__init__(dims_in, dims_c)
        self.output_dims(self.dims_in)
        _set_squeeze(self, self._channels, legacy_backend)

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        return _squeeze(self, x[0], rev, jac)


class IRevNetUpsampling(_Up):
    """Spread every four channels over patches of 2 x 2 positions: the inverse of :class:`IRevNetDownsampling`.

    Arguments:
        dims_in: Shape of the image, in a list.
        dims_c: Not used.
        legacy_backend: Order of the channels: by place in the patch, then by channel.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dims_c: Any = None, legacy_backend: bool = False) -> None:
        super().__init__(dims_in, dims_c)
        _set_squeeze(self, self.output_dims(self.dims_in)[0][0], legacy_backend)

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        return _squeeze(self, x[0], not rev, jac)


def _set_haar(module: Any, shape: Shape, order_by_wavelet: bool, rebalance: float) -> None:
    """Give a module the signs of the wavelets, for each channel, as checkpoints of FrEIA hold them."""
    if rebalance == 0:
        raise GraphError(type(module).__name__, "rebalance=0", "rebalance must not be 0")
    module.rebalance = rebalance
    module.permute = order_by_wavelet
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    module.haar_weights = nn.Parameter(signs.reshape(4, 1, 2, 2).repeat(shape[0], 1, 1, 1), requires_grad=False)


def _haar(module: Any, x: Tensor, rev: bool) -> Result:
    """Apply the transform or its inverse; rebalance scales the averages as well."""
    by_wavelet, matrix = module.permute, module.haar_weights[:4].flatten(1) * 0.5
    if rev:
        patches = torch.unflatten(x, 1, (4, -1) if by_wavelet else (-1, 4))
        y = _from_patches(_on_patches(patches, matrix.t() / module.rebalance, by_wavelet), by_wavelet)
    else:
        y = _on_patches(_to_patches(x, by_wavelet), matrix * module.rebalance, by_wavelet)
    log_jac = (-1 if rev else 1) * math.prod(x.shape[1:]) * math.log(abs(module.rebalance))
    return (y,), y.new_full((y.shape[0],), log_jac)


def _on_patches(patches: Tensor, matrix: Tensor, by_wavelet: bool) -> Tensor:
    """Multiply each patch, in axis 1 or 2, by a matrix; return the channels in one axis.

    It takes less time than a grouped convolution, which costs per channel, and than a transposed one.
    """
    batch, first, second, *size = patches.shape
    parts = patches.reshape(batch, 4, -1) if by_wavelet else patches.reshape(batch * first, 4, -1)
    return mix(parts, matrix).reshape(batch, first * second, *size)


class HaarDownsampling(_Down):
    """Halve height and width by Haar wavelets.

    Arguments:
        dims_in: Shape of the image, in a list.
        dims_c: Not used.
        order_by_wavelet: Order the channels by wavelet, then by channel.
        rebalance: Factor on all coefficients, averages included; not zero.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = None, order_by_wavelet: bool = False, rebalance: float = 1.0
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.output_dims(self.dims_in)
        _set_haar(self, self.dims_in[0], order_by_wavelet, rebalance)

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        return _haar(self, x[0], rev)


class HaarUpsampling(_Up):
    """Double height and width by Haar wavelets: the inverse of :class:`HaarDownsampling`.

    Arguments:
        dims_in: Shape of the image, in a list.
        dims_c: Not used.
        order_by_wavelet: Order of the channels: by wavelet, then by channel.
        rebalance: Factor by which all coefficients are divided; not zero.
    """

    def __init__(
        self, dims_in: Any, dims_c: Any = None, order_by_wavelet: bool = False, rebalance: float = 1.0
    ) -> None:
        super().__init__(dims_in, dims_c)
        _set_haar(self, self.output_dims(self.dims_in)[0], order_by_wavelet, rebalance)

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        return _haar(self, x[0], not rev)


class Flatten(OneInput):
    """Flatten each sample to a vector.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
    """

    preserves_volume = True

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        y = x[0].reshape(x[0].shape[0], *self.dims_in[0]) if rev else x[0].flatten(1)
        return (y,), no_log_jac(y, jac)

    def output_dims(self, input_dims: Any) -> Any:
        return ((math.prod(input_dims[0]),),)


class Reshape(OneInput):
    """Give each sample another shape.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        output_dims: Shape of the output.
        target_dim: Deprecated name of ``output_dims``.
    """

    preserves_volume = True

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = None,
        output_dims: Iterable[int] | None = None,
        target_dim: Iterable[int] | None = None,
    ) -> None:
        super().__init__(dims_in, dims_c)
        if target_dim is not None:
            warnings.warn("Reshape(target_dim=...) is deprecated: write output_dims=...", stacklevel=2)
            output_dims = target_dim
        if output_dims is None:
            raise ArgumentError("Reshape", "output_dims=None", "specify the shape of the output: output_dims=(4, 7, 7)")
        self.size, self.target_dim = tuple(self.dims_in[0]), tuple(output_dims)
        if math.prod(self.size) != math.prod(self.target_dim):
            given = f"output_dims={self.target_dim} for an input of shape {self.size}"
            raise GraphError("Reshape", given, "both shapes must have the same number of elements")

    def forward(self, x: Sequence[Tensor], c: Any = None, jac: bool = True, rev: bool = False) -> Result:
        y = x[0].reshape(x[0].shape[0], *(self.size if rev else self.target_dim))
        return (y,), no_log_jac(y, jac)

    def output_dims(self, input_dims: Any) -> Any:
        return (self.target_dim,)
