"""A model of colours together with its units: photographs in Lab in, colours in Lab out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

import invgraph as ig
from colorization.photos import Statistics

Config = dict[str, Any]


class Model(Protocol):
    """What a colorizer holds: :class:`invgraph.Flow`, or a baseline with its two methods."""

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """To be minimised; nats per sample for densities."""

    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Samples (n, B, ...)."""


class Unconditional(nn.Module):
    """A flow that does not look at the condition it is given."""

    def __init__(self, flow: ig.Flow) -> None:
        super().__init__()
        self.flow = flow

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Of the colours alone."""
        loss: Tensor = self.flow.loss(x)
        return loss

    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n, B, ...), as if it had looked."""
        drawn = self.flow.sample(n * len(c), temperature=temperature, generator=generator)
        samples: Tensor = drawn.unflatten(0, (n, len(c)))
        return samples


class Colorizer(nn.Module):
    """A model of normalised colours given normalised lightness, called with photographs in Lab.

    Arguments:
        model: of the colours.
        statistics: offset and scale of L, a and b.
        colours: pixels of the side of the colours that the model generates; the lightness may have more.
        noise: half the width of the uniform noise on normalised colours, in training and in likelihoods.
        config: what it takes to build this colorizer again, of JSON's types.
    """

    model: Any  # a module that is a Model: nn.Module can't say both
    offset: Tensor
    scale: Tensor

    def __init__(
        self, model: nn.Module, statistics: Statistics, colours: int, noise: float, config: Config | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.colours, self.noise, self.config = colours, noise, dict(config or {})
        self.register_buffer("offset", torch.tensor(statistics.offset)[:, None, None])
        self.register_buffer("scale", torch.tensor(statistics.scale)[:, None, None])

    @property
    def dims(self) -> int:
        """Numbers in one picture's colours."""
        return 2 * self.colours**2

    def prepare(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised colours (B, 2, s, s) and lightness (B, 1, S, S), on this device, of photographs (B, 3, S, S)."""
        normal = (lab.to(self.offset.device) - self.offset) / self.scale
        return functional.adaptive_avg_pool2d(normal[:, 1:], self.colours), normal[:, :1]

    def own_colours(self, lab: Tensor) -> Tensor:
        """The colours (B, 2, s, s) of photographs (B, 3, S, S), in Lab, as large as this model paints them."""
        return functional.adaptive_avg_pool2d(lab[:, 1:], self.colours)

    def lab_colours(self, x: Tensor) -> Tensor:
        """Normalised colours (..., 2, s, s) in units of Lab."""
        return x * self.scale[1:] + self.offset[1:]

    def forward(self, lab: Tensor) -> Tensor:
        """The training loss of a batch of photographs, per dimension; noise from the global generator."""
        x, c = self.prepare(lab)
        noise = torch.empty_like(x).uniform_(-self.noise, self.noise)
        loss: Tensor = self.model.loss(x + noise, c) / self.dims
        return loss

    @torch.no_grad()
    def nll(self, lab: Tensor, seed: int = 0) -> Tensor:
        """Negative log-likelihood of each photograph's noisy colours, normalised, nats per dimension."""
        x, c = self.prepare(lab)
        generator = torch.Generator().manual_seed(seed)  # the same noise on every device
        x = x + ((torch.rand(x.shape, generator=generator) * 2 - 1) * self.noise).to(x)
        rows = [self.model.loss(x[row : row + 1], c[row : row + 1]) for row in range(len(x))]
        return torch.stack(rows).to(lab.device) / self.dims + 0.5 * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(
        self, lightness: Tensor, n: int, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Colours (n, B, 2, s, s) in Lab units for lightness (B, 1, S, S) in 0..100."""
        c = (lightness.to(self.offset.device) - self.offset[:1]) / self.scale[:1]
        return self.lab_colours(self.model.sample(n, c, temperature, generator=generator)).to(lightness.device)

    def generator(self, seed: int) -> torch.Generator:
        """A source of latents on this colorizer's device."""
        return torch.Generator(self.offset.device).manual_seed(seed)


def load_colorizer(path: Path | str, build: Callable[[Config], Colorizer], example: str | None = None) -> Colorizer:
    """A saved colorizer, ready to sample: its config is in the file, what is built of it must be what was saved.

    Arguments:
        path: the file.
        build: a colorizer from its config.
        example: name of the example whose ``build`` it is; what another one saved is refused.
    """
    config = ig.load(path).metadata
    if not {"preset", "kind", "statistics"} <= config.keys():
        raise ValueError(f"{path} is no saved colorizer: it tells of {sorted(config) or 'nothing'}")
    other = config.get("example", example)
    if example is not None and other != example:
        raise ValueError(f"{path} is a colorizer of the {other} example, not of {example}: take {other}_cinn.py")
    colorizer = build(config)
    ig.load(path, colorizer)
    return colorizer.eval()
