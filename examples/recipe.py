"""Hyperparameters of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training run.

    Arguments:
        steps: Number of steps.
        batch: Batch size, summed over all processes.
        rate: Maximum learning rate of AdamW. Default: 0.001.
        warmup: Number of steps in which the rate rises linearly from 0. Default: 0.
        schedule: Schedule after the warmup: ``"cosine"`` (default) decays to 0, ``"drops"`` divides the rate by ten
            after each third of the steps.
        beta2: Decay rate of the second moment in AdamW. Default: 0.999.
        weight_decay: Weight decay of AdamW. Default: 0.
        clip: Maximum norm of the gradient. Default: 10.
        average: Decay rate of the averaged weights, which are the result; 0 (default) disables averaging.
        autocast: If True, run operations that torch considers safe in bfloat16. Default: False.
    """

    steps: int
    batch: int
    rate: float = 1e-3
    warmup: int = 0
    schedule: Literal["cosine", "drops"] = "cosine"
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 10.0
    average: float = 0.0
    autocast: bool = False

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "drops":
            return self.rate * 0.1 ** int(3 * done)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))
