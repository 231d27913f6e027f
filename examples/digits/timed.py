"""Training of digit models for a given processor time, with bits per dimension along the way; it can be resumed.

Only time of the process spent in training steps counts, so that other programs on the machine, measurements and
checkpoints don't make a difference between models, or hardly any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from progress import Stop
from torch import Tensor, nn

import invgraph as ig
from digits import data

AVERAGE = 0.998
"""Decay rate of the averaged weights, which are those that are measured and used."""

DECAY = 0.25
"""Last part of the time, in which the learning rate falls to zero."""

LOOKS = 24
"""Number of measurements along the way."""

Say = Callable[[str], None]


@dataclass
class Curve:
    """Measurements along the way: processor seconds, steps, and bits per dimension of test digits."""

    seconds: list[float] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)


def as_bytes(pixels: Tensor) -> Tensor:
    """Convert bytes ``(B, 28, 28)`` to inputs of the models, ``(B, 1, 28, 28)``."""
    return pixels.float().unsqueeze(1)


@torch.no_grad()
def bits(flow: ig.Flow, digits: data.Digits, batch: int = 250) -> float:
    """Return bits per dimension with uniform dequantization, an upper bound on those needed for the bytes."""
    pairs = zip(digits.pixels.split(batch), data.condition(digits.labels).split(batch), strict=True)
    log_probs = torch.cat([flow.log_prob(as_bytes(pixels), c) for pixels, c in pairs])
    return -log_probs.double().mean().item() / (math.log(2) * flow.dims)


class Run:
    """Training run of a model; everything it needs to continue is in its checkpoint.

    Arguments:
        flow: Model of bytes, which is trained in place.
        rate: Highest learning rate of AdamW.
        batch: Batch size.
        seconds: Processor seconds to train for. A resumed run may be given others: the rate falls in the last quarter.
        checkpoint: Path of the checkpoint; an existing one is continued.
        metadata: Metadata of the checkpoint.
    """

    def __init__(
        self, flow: ig.Flow, rate: float, batch: int, seconds: float, checkpoint: Path, metadata: dict[str, Any]
    ) -> None:
        self.flow, self.rate, self.batch, self.seconds = flow, rate, batch, seconds
        self.checkpoint, self.metadata = checkpoint, metadata
        self.step, self.spent, self.curve = 0, 0.0, Curve()
        self.weights = list(flow.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, rate, (0.9, 0.99), weight_decay=1e-5, fused=True)
        if checkpoint.exists():
            self._restore()
        self.averages = [weight.detach().clone() for weight in self.weights]
        if checkpoint.exists():
            self._set_weights(self._raw)

    def train(self, digits: data.Digits, test: data.Digits, say: Say, save_seconds: float = 60) -> bool:
        """Train until the time is over, or Ctrl-C; measure on test digits along the way.

        Returns:
            True if the time is over, False if the run was stopped.
        """
        conditions = data.condition(digits.labels)
        saved, next_look = time.monotonic(), self._next_look()
        with Stop(torch.device("cpu")) as stop:
            while self.spent < self.seconds and not stop.asked():
                began = time.process_time()
                self._update(digits.pixels, conditions)
                self.spent += time.process_time() - began
                if self.spent >= next_look or self.spent >= self.seconds:
                    self._look(test)
                    next_look = self._next_look()
                    say(f"{self.spent:6.0f} s  step {self.step:,}  {self.curve.bits[-1]:.4f} bits per dimension")
                if time.monotonic() - saved > save_seconds:
                    self.save()
                    saved = time.monotonic()
            self.save()
        self._set_weights(self.averages)
        self.flow.eval()
        return self.spent >= self.seconds

    def _rate(self) -> float:
        left = 1 - self.spent / self.seconds
        return self.rate * min(1.0, (self.step + 1) / 100, left / DECAY)

    def _next_look(self) -> float:
        """Looks are denser at the beginning: the times are squares."""
        number = math.floor(LOOKS * math.sqrt(self.spent / self.seconds)) + 1
        return self.seconds * (number / LOOKS) ** 2

    def _update(self, pixels: Tensor, conditions: Tensor) -> None:
        self.flow.train()
        torch.manual_seed(self.step)  # a resumed run draws what it would have drawn
        rows = torch.randint(len(pixels), (self.batch,))
        loss = -self.flow(as_bytes(pixels[rows]), conditions[rows]).mean() / self.flow.dims
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, 10.0)
        if bool(norm.isfinite()):
            self.optimizer.step()
        self.step += 1
        weight_of_new = max(1 - AVERAGE, 10 / (10 + self.step))
        torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], weight_of_new)

    def _look(self, test: data.Digits) -> None:
        raw = [weight.detach().clone() for weight in self.weights]
        self._set_weights(self.averages)
        self.flow.eval()
        self.curve.seconds.append(round(self.spent, 1))
        self.curve.step.append(self.step)
        self.curve.bits.append(round(bits(self.flow, test), 4))
        self._set_weights(raw)

    def save(self) -> None:
        """Write the checkpoint: the averaged weights, and all that is needed to continue."""
        raw = [weight.detach().clone() for weight in self.weights]
        state = {"step": self.step, "spent": self.spent, "curve": asdict(self.curve), "weights": raw,
                 "optimizer": self.optimizer.state_dict()}  # fmt: skip
        self._set_weights(self.averages)
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        curve = {"curve": asdict(self.curve), "steps": self.step, "seconds": round(self.spent, 1)}
        ig.save(self.checkpoint, self.flow, training=state, metadata={**self.metadata, **curve})
        self._set_weights(raw)

    def _restore(self) -> None:
        """Put the averaged weights into the model, and keep those to train on."""
        state = ig.load(self.checkpoint, self.flow).training
        if state is None:
            raise ValueError(f"{self.checkpoint} holds no training state: it can be used, but not resumed")
        self.step, self.spent, self.curve = state["step"], state["spent"], Curve(**state["curve"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._raw: list[Tensor] = state["weights"]

    @torch.no_grad()
    def _set_weights(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)
