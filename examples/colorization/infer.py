"""Colorization of photographs at full resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colorization.colorizer import Colorizer
from colorization.lab import lab_to_rgb, rgb_to_lab
from colorization.photos import to_tensor
from colorization.upsampling import bicubic, joint_bilateral

Pixels = NDArray[np.uint8]
GUIDED = 1024  # long side up to which colors follow the edges of the lightness; beyond, they are smooth
STEP = 4  # factor of one joint bilateral upsampling, whose window spans a few coarse pixels


def square(pixels: Pixels, side: int) -> Tensor:
    """Return the Lab values (1, 3, side, side) of a photograph (H, W, 3) resized to a square."""
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return rgb_to_lab(to_tensor(np.asarray(small)))[None]


def colorize(
    colorizer: Colorizer,
    pixels: Pixels,
    n: int,
    *,
    side: int,
    temperature: float = 1.0,
    seed: int = 0,
    upsampling: str = "joint",
) -> list[Pixels]:
    """Return ``n`` colorizations of a photograph at its resolution; only its lightness is used.

    Arguments:
        colorizer: Colorizer in evaluation mode.
        pixels: Photograph (H, W, 3), in color or gray.
        n: Number of colorizations.
        side: Side of the lightness that the colorizer takes, in pixels.
        temperature: Temperature of the latents; 0 gives equal colors. Default: 1.
        seed: Seed of the latents. Default: 0.
        upsampling: ``"joint"`` (default), whose edges follow the lightness, or ``"bicubic"``.
    """
    generator = colorizer.generator(seed)
    ab = colorizer.sample(square(pixels, side)[:, :1], n, temperature, generator=generator)[:, 0]
    lightness = rgb_to_lab(to_tensor(pixels))[None, :1]
    return paint(lightness, ab, upsampling)


def paint(lightness: Tensor, ab: Tensor, upsampling: str = "joint", guided: int = GUIDED) -> list[Pixels]:
    """Combine one lightness (1, 1, H, W) with each of several colors (n, 2, h, w) to pixels (H, W, 3)."""
    full = upsample(ab, lightness, upsampling, guided)
    painted = (lab_to_rgb(torch.cat((lightness[0], colors)))[None] for colors in full)
    return [(rgb[0] * 255).round().byte().permute(1, 2, 0).numpy() for rgb in painted]


def upsample(ab: Tensor, lightness: Tensor, how: str = "joint", guided: int = GUIDED) -> Tensor:
    """Upsample colors to the resolution of the lightness.

    Arguments:
        ab: Colors (n, 2, h, w).
        lightness: Lightness (1, 1, H, W).
        how: ``"joint"`` (default), in steps of at most four, or ``"bicubic"``.
        guided: Long side up to which ``"joint"`` follows the edges of the lightness; beyond, colors are smooth.
            Default: 1024.
    """
    height, width = int(lightness.shape[-2]), int(lightness.shape[-1])
    if how == "joint":
        scale = min(1.0, guided / max(height, width))
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
        while tuple(ab.shape[-2:]) != target:
            h, w = (min(end, STEP * int(now)) for now, end in zip(ab.shape[-2:], target, strict=True))
            ab = joint_bilateral(ab, _resize(lightness, (h, w)))
    elif how != "bicubic":
        raise ValueError(f"upsampling {how!r}: choose 'joint' or 'bicubic'")
    return ab if tuple(ab.shape[-2:]) == (height, width) else bicubic(ab, (height, width))


def _resize(lightness: Tensor, size: tuple[int, int]) -> Tensor:
    resize: Callable[..., Tensor] = torch.nn.functional.interpolate
    return lightness if lightness.shape[-2:] == size else resize(lightness, size, mode="bilinear", antialias=True)


def distinct_names(sources: Sequence[Path]) -> list[str]:
    """Return distinct names of files without suffixes; repeated ones, ignoring case, get a number."""
    names: list[str] = []
    taken = {source.stem.casefold() for source in sources}
    for source in sources:
        name, number = source.stem, 1
        while name.casefold() in {other.casefold() for other in names} or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{source.stem}-{number}"
        names.append(name)
    return names


def write_colorizations(images: list[Pixels], name: str, folder: Path) -> list[Path]:
    """Write PNG files ``<name>_0.png``, ``<name>_1.png``, ... to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}_{k}.png" for k in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths
