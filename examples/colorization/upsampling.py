"""Upsampling of generated colors to the resolution of a photograph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


def bicubic(ab: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample colors (B, 2, h, w) to (B, 2, *size), regardless of the lightness."""
    return functional.interpolate(ab, size=size, mode="bicubic", align_corners=False)


@torch.no_grad()
def joint_bilateral(
    ab: Tensor, lightness: Tensor, *, window: int = 19, spatial: float = 6.0, range_: float = 0.10, unit: float = 25.6
) -> Tensor:
    r"""Upsample colors to the resolution of the lightness, whose edges they follow.

    .. math:: ab(p) = \frac{1}{k_p} \sum_q ab_\uparrow(q)\, e^{-|p - q|^2 / 2 \sigma_s^2}
              e^{-(L(p) - L(q))^2 / 2 \sigma_r^2}

    over a square window of pixels q; those outside the picture are skipped, so that k_p normalizes at the borders too.
    The colors are first upsampled by nearest neighbors.

    Arguments:
        ab: Colors (B, 2, h, w), in Lab units.
        lightness: Lightness (B, 1, H, W), 0..100; a batch of 1 is used for all colors.
        window: Side of the window, in pixels, which must be odd: an even window, such as the 18 of the paper, would
            shift the colors by half a pixel. Default: 19.
        spatial: Standard deviation sigma_s, in pixels. Default: 6.
        range_: Standard deviation sigma_r, in multiples of ``unit``. Default: 0.1.
        unit: Scale by which the model normalizes the lightness. Default: 25.6.

    References:
        J. Kopf, M. Cohen, D. Lischinski, M. Uyttendaele, "Joint Bilateral Upsampling", 2007,
        https://doi.org/10.1145/1276377.1276497
    """
    if window % 2 == 0:
        raise ValueError(f"a window of {window} has no center: use {window + 1}")
    reach = window // 2
    height, width = lightness.shape[-2:]
    colors = functional.interpolate(ab, size=(height, width), mode="nearest-exact")
    guide = (lightness / (unit * range_)).to(ab.dtype)
    total = torch.zeros_like(colors)
    weights = torch.zeros_like(guide)
    with _flush_denormals():
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                rows, far_rows = _overlap(dy, height)
                columns, far_columns = _overlap(dx, width)
                here, there = (..., rows, columns), (..., far_rows, far_columns)
                distance = (dy * dy + dx * dx) / (2 * spatial**2)
                weight = torch.exp(-0.5 * (guide[there] - guide[here]).square() - distance)
                weights[here] += weight
                total[here] += weight * colors[there]
    return total / weights


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return slices of the positions p and p + shift for which both are in the picture."""
    return slice(max(0, -shift), max(0, size - max(0, shift))), slice(max(0, shift), max(0, size + min(0, shift)))


@contextmanager
def _flush_denormals() -> Iterator[None]:
    """Flush denormals to zero: the weights of distant pixels underflow, and CPUs are ten times slower on denormals."""
    # torch can't report the mode, but a product with a denormal result reveals it.
    before = torch.tensor(1e-38).mul(1e-2).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
