"""Running average of a model's parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Running average of the parameters that are trained, which can take their place."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.values = [parameter.detach().clone() for parameter in self.parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters in; the first steps are forgotten sooner."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        if self.values:
            get_ema_multi_avg_fn(decay)(self.values, self.parameters, self.steps)  # one call for all

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for value, parameter in zip(self.values, self.parameters, strict=False):
            current = parameter.clone()
            parameter.copy_(value)
            value.copy_(current)
