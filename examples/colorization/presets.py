"""Sizes of a model and of its training, as one record that JSON can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Preset:
    """Sizes of the model, and how it is trained.

    Arguments:
        size: pixels of the side of the colours.
        features: channels of the conditioning network's maps and vector.
        hidden: width of the subnets of each stage.
        blocks: coupling blocks of each stage.
        clamp: bound of the log scale.
        noise: half the width of the uniform noise on normalised colours.
        batch: photographs in a training step.
        rate: highest learning rate.
        steps: of training, the first phase included.
        schedule: of the rate: ``"cosine"`` or ``"drops"``.
        average: how slowly the averaged weights move; 0: no averaging.
        lightness: pixels of the side of the lightness; 0: as many as the colours have.
        first: steps of the first phase, in which the conditioning network is frozen.
        width: channels of the first layers of a VGG-like conditioning network.
    """

    size: int
    features: tuple[int, int, int, int]
    hidden: tuple[int, ...]
    blocks: tuple[int, ...]
    clamp: float
    noise: float
    batch: int
    rate: float
    steps: int
    schedule: Literal["cosine", "drops"] = "cosine"
    average: float = 0.0
    lightness: int = 0
    first: int = 0
    width: int = 0

    @property
    def seen(self) -> int:
        """Pixels of the side of the lightness."""
        return self.lightness or self.size
