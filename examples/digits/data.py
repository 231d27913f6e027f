"""MNIST as tensors: standardized pictures, and labels as integers and one-hot conditions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from digits.idx import IDXError, read_idx

MEAN, STD = 0.1307, 0.3081
"""Mean and standard deviation of the training pixels, in the range 0 to 1."""

FOLDER = Path(__file__).parents[1] / "data" / "mnist"


class Digits(NamedTuple):
    """Pictures ``(N, 28, 28)`` of bytes, and their labels ``(N,)``."""

    pixels: Tensor
    labels: Tensor


def load(part: str, folder: str | Path = FOLDER) -> Digits:
    """Load the ``"train"`` or ``"test"`` part of MNIST.

    Raises:
        IDXError: If one of the two files is damaged, or they do not belong together.
    """
    folder = Path(folder)
    prefix = {"train": "train", "test": "t10k"}[part]
    images_path, labels_path = (folder / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    pixels, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if pixels.shape[1:] != (28, 28):
        found = f"pictures of {pixels.shape[1]} x {pixels.shape[2]} pixels"
        raise IDXError(images_path, found, "MNIST has 28 x 28: is this another data set?")
    if len(pixels) != len(labels) or (labels > 9).any():
        found = f"{len(labels)} labels up to {labels.max(initial=0)}"
        raise IDXError(labels_path, found, f"expected {len(pixels)} labels from 0 to 9, one for each picture")
    return Digits(torch.from_numpy(pixels), torch.from_numpy(labels).long())


def standardize(pixels: Tensor) -> Tensor:
    """Standardize pixels from 0 to 1, ``(B, 28, 28)``, to inputs of the model, ``(B, 1, 28, 28)``."""
    return ((pixels - MEAN) / STD).unsqueeze(1)


def to_pixels(x: Tensor) -> Tensor:
    """Convert inputs or samples of the model to pixels, clipped to the range from 0 to 1."""
    return (x * STD + MEAN).clamp(0, 1)


def condition(labels: Tensor) -> Tensor:
    """Return the labels as conditions of the model, shape ``(B, 10)``: one-hot, then standardized like the pixels.

    Ones and zeros would weigh little beside the 392 pixels that a subnet also reads, and it would take far longer until
    the generated digits are the requested ones.
    """
    return (torch.nn.functional.one_hot(labels, 10) - 0.1) / 0.3
