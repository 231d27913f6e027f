"""Conversion between sRGB and CIE Lab (D65, 2 degrees), in the dtype of the given tensor."""

from __future__ import annotations

import torch
from torch import Tensor

# Linear sRGB to XYZ (IEC 61966-2-1), and the white point of D65 with Y = 1.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
_EPSILON = 0.008856  # below it the cube root is replaced by a line (CIE 15, rounded as is customary)
_SLOPE = 7.787
_SHIFT = 16 / 116


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to Lab.

    Arguments:
        rgb: sRGB values, ``(..., 3, H, W)`` in 0..1.

    Returns:
        Lab values of the same shape: L in 0..100, a and b in about -110..110.
    """
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(linear, _matrix(rgb)) / _white(rgb)
    f = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), _SLOPE * xyz + _SHIFT)
    x, y, z = f.unbind(-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """Convert Lab to sRGB.

    Arguments:
        lab: Lab values, ``(..., 3, H, W)``.
        clip: If True (default), clamp colors outside the sRGB gamut to 0..1, as needed for display.

    Returns:
        sRGB values of the same shape, in 0..1 if clipped.
    """
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, y - b / 200), dim=-3)
    f = torch.cat((f[..., :2, :, :], f[..., 2:, :, :].clamp_min(0)), dim=-3)  # Z is never negative
    edge = _SLOPE * _EPSILON + _SHIFT
    xyz = torch.where(f > edge, f**3, (f - _SHIFT) / _SLOPE) * _white(lab)
    linear = _mix(xyz, torch.linalg.inv(_matrix(lab)))
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1) if clip else rgb


def _matrix(like: Tensor) -> Tensor:
    return torch.tensor(_XYZ, dtype=like.dtype, device=like.device)


def _white(like: Tensor) -> Tensor:
    return torch.tensor(_WHITE, dtype=like.dtype, device=like.device)[:, None, None]


def _mix(pixels: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,...jhw->...ihw", matrix, pixels)
