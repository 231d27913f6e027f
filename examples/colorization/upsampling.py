"""From the resolution at which colours are generated to that of the photograph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


def bicubic(ab: Tensor, size: tuple[int, int]) -> Tensor:
    """Colours (B, 2, h, w) at another resolution (B, 2, *size), ignoring the picture below them."""
    return functional.interpolate(ab, size=size, mode="bicubic", align_corners=False)


@torch.no_grad()
def joint_bilateral(
    ab: Tensor, lightness: Tensor, *, window: int = 19, spatial: float = 6.0, range_: float = 0.10, unit: float = 25.6
) -> Tensor:
    r"""Colours at the resolution of the lightness, whose edges they follow.

    .. math:: ab(p) = \frac{1}{k_p} \sum_q ab_\uparrow(q)\, e^{-|p - q|^2 / 2 \sigma_s^2}
              e^{-(L(p) - L(q))^2 / 2 \sigma_r^2}

    over a square window of taps q; those outside the picture are skipped, so that k_p normalises borders too. The
    colours are first brought to the resolution by nearest neighbours.

    Arguments:
        ab: (B, 2, h, w), Lab units.
        lightness: (B, 1, H, W), 0..100; a batch of 1 serves all colours.
        window: pixels of the window's side, odd: as many on the left as on the right. An even window, such as the
            paper's of 18, would move the colours by a part of a pixel.
        spatial: sigma_s, pixels.
        range_: sigma_r, in ``unit``.
        unit: of the lightness: the scale by which the model normalises it.

    References:
        J. Kopf, M. Cohen, D. Lischinski, M. Uyttendaele, "Joint Bilateral Upsampling", 2007,
        https://doi.org/10.1145/1276377.1276497
    """
    if window % 2 == 0:
        raise ValueError(f"a window of {window} has no middle: take {window + 1}")
    reach = window // 2
    height, width = lightness.shape[-2:]
    colours = functional.interpolate(ab, size=(height, width), mode="nearest-exact")
    guide = (lightness / (unit * range_)).to(ab.dtype)
    total = torch.zeros_like(colours)
    weights = torch.zeros_like(guide)
    with _flushing_denormals():
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                rows, far_rows = _overlap(dy, height)
                columns, far_columns = _overlap(dx, width)
                here, there = (..., rows, columns), (..., far_rows, far_columns)
                distance = (dy * dy + dx * dx) / (2 * spatial**2)
                weight = torch.exp(-0.5 * (guide[there] - guide[here]).square() - distance)
                weights[here] += weight
                total[here] += weight * colours[there]
    return total / weights


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """The places p and p + shift for which both lie in the picture."""
    return slice(max(0, -shift), max(0, size - max(0, shift))), slice(max(0, shift), max(0, size + min(0, shift)))


@contextmanager
def _flushing_denormals() -> Iterator[None]:
    """Weights of far-off taps underflow; a CPU is ten times slower on denormal numbers than on zeros."""
    # No reader exists: a product of two numbers whose result is denormal shows the mode.
    before = torch.tensor(1e-38).mul(1e-2).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
