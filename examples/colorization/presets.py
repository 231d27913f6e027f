"""Sizes of a model and hyperparameters of its training, in types that JSON supports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Preset:
    """Sizes of a model and hyperparameters of its training.

    Arguments:
        size: Side of the colors, in pixels.
        features: Channels of the maps and of the vector of the conditioning network.
        hidden: Width of the subnets in each stage.
        blocks: Number of coupling blocks in each stage.
        clamp: Bound of the log scale.
        noise: Half-width of the uniform noise on normalized colors.
        batch: Batch size.
        rate: Maximum learning rate.
        steps: Number of training steps, including the first phase.
        schedule: Schedule of the learning rate: ``"cosine"`` (default) or ``"drops"``.
        average: Decay rate of the averaged weights; 0 (default) disables averaging.
        lightness: Side of the lightness, in pixels; 0 (default) for that of the colors.
        first: Number of steps of the first phase, in which the conditioning network is frozen. Default: 0.
        width: Channels of the first layers of a VGG-like conditioning network. Default: 0.
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
        """Side of the lightness, in pixels."""
        return self.lightness or self.size
