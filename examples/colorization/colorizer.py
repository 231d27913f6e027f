"""Model of colors together with its units: photographs in Lab to colors in Lab."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from weights import load_weights

import invgraph as ig
from colorization.photos import Statistics

Config = dict[str, Any]


class Model(Protocol):
    """Interface of the model in a colorizer: two methods of :class:`invgraph.Flow`, which the baselines have too."""

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the loss to be minimized, in nats per sample for densities."""

    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return samples, (n, B, ...)."""


class Unconditional(nn.Module):
    """Flow that ignores the condition."""

    def __init__(self, flow: ig.Flow) -> None:
        super().__init__()
        self.flow = flow

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the loss of the colors alone."""
        loss: Tensor = self.flow.loss(x)
        return loss

    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return samples (n, B, ...), for the batch size of the condition."""
        drawn = self.flow.sample(n * len(c), temperature=temperature, generator=generator)
        samples: Tensor = drawn.unflatten(0, (n, len(c)))
        return samples


class Colorizer(nn.Module):
    """Model of normalized colors given normalized lightness, called with photographs in Lab.

    Arguments:
        model: Model of the colors.
        statistics: Offset and scale of L, a and b.
        colors: Side of the generated colors, in pixels; the lightness may be larger.
        noise: Half-width of the uniform noise on normalized colors, in training and in likelihoods.
        config: Configuration from which to build the colorizer again, in JSON types. Default: empty.
    """

    model: Any  # an nn.Module that is a Model as well, which has no type
    offset: Tensor
    scale: Tensor

    def __init__(
        self, model: nn.Module, statistics: Statistics, colors: int, noise: float, config: Config | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.colors, self.noise, self.config = colors, noise, dict(config or {})
        self.register_buffer("offset", torch.tensor(statistics.offset)[:, None, None])
        self.register_buffer("scale", torch.tensor(statistics.scale)[:, None, None])

    @property
    def dims(self) -> int:
        """Number of elements in the colors of one picture."""
        return 2 * self.colors**2

    def prepare(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalized colors (B, 2, s, s) and lightness (B, 1, S, S) of photographs (B, 3, S, S)."""
        normal = (lab.to(self.offset.device) - self.offset) / self.scale
        return functional.adaptive_avg_pool2d(normal[:, 1:], self.colors), normal[:, :1]

    def own_colors(self, lab: Tensor) -> Tensor:
        """Return the colors (B, 2, s, s) of photographs (B, 3, S, S), in Lab, at the resolution of the model."""
        return functional.adaptive_avg_pool2d(lab[:, 1:], self.colors)

    def lab_colors(self, x: Tensor) -> Tensor:
        """Convert normalized colors (..., 2, s, s) to Lab units."""
        return x * self.scale[1:] + self.offset[1:]

    def forward(self, lab: Tensor) -> Tensor:
        """Return the training loss of a batch of photographs, per dimension, with noise from the global generator."""
        x, c = self.prepare(lab)
        noise = torch.empty_like(x).uniform_(-self.noise, self.noise)
        loss: Tensor = self.model.loss(x + noise, c) / self.dims
        return loss

    @torch.no_grad()
    def nll(self, lab: Tensor, seed: int = 0) -> Tensor:
        """Return the negative log-likelihood of noisy normalized colors, in nats per dimension, shape (B,)."""
        x, c = self.prepare(lab)
        generator = torch.Generator().manual_seed(seed)  # the same noise on every device
        x = x + ((torch.rand(x.shape, generator=generator) * 2 - 1) * self.noise).to(x)
        rows = [self.model.loss(x[row : row + 1], c[row : row + 1]) for row in range(len(x))]
        return torch.stack(rows).to(lab.device) / self.dims + 0.5 * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(
        self, lightness: Tensor, n: int, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw colors (n, B, 2, s, s), in Lab units, for lightness (B, 1, S, S) in 0..100."""
        c = (lightness.to(self.offset.device) - self.offset[:1]) / self.scale[:1]
        return self.lab_colors(self.model.sample(n, c, temperature, generator=generator)).to(lightness.device)

    def generator(self, seed: int) -> torch.Generator:
        """Return a generator for latents, on the device of the colorizer."""
        return torch.Generator(self.offset.device).manual_seed(seed)


def load_colorizer(path: Path | str, build: Callable[[Config], Colorizer], example: str | None = None) -> Colorizer:
    """Load a saved colorizer in evaluation mode.

    Arguments:
        path: Path of the file, which contains the config.
        build: Function that builds a colorizer from a config.
        example: Name of the example that ``build`` belongs to; files of another example raise an error. Default: any.

    Raises:
        ValueError: If the file is not a colorizer of the example.
    """
    config = ig.load(path).metadata
    if not {"preset", "kind", "statistics"} <= config.keys():
        raise ValueError(f"{path} is not a saved colorizer: its metadata has {sorted(config) or 'no keys'}")
    other = config.get("example", example)
    if example is not None and other != example:
        raise ValueError(f"{path} is a colorizer of the {other} example, not of {example}: take {other}_cinn.py")
    colorizer = build(config)
    load_weights(path, colorizer)
    return colorizer.eval()
