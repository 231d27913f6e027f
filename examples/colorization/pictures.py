"""Pictures of the paper on colorization: Figs. 11 to 16 and interpolation, as grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import invgraph as ig
from colorization.colorizer import Colorizer
from colorization.infer import Pixels, paint
from colorization.metrics import rmse_best
from colorization.photos import Crops, Folder

SHOWN = 128  # side of a picture in a grid
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
GAP = 2  # pixels between pictures of a grid
SHORT = {"cinn": "cINN", "cvae": "VAE", "cgan": "cGAN", "colorgan": "colorGAN", "cnn": "CNN"}

Titles = Sequence[tuple[str, int]]
"""Titles of a grid from left to right, each with the number of its columns."""


class Gallery:
    """Pictures of one split of a folder.

    Arguments:
        colorizer: Colorizer with a flow.
        folder: Photographs.
        split: Split of the folder.
        seen: Side of the lightness that the colorizer takes, in pixels.
        seed: Seed of all latents. Default: 0.
        temperature: Temperature of random colorizations. Default: 1.
    """

    def __init__(
        self, colorizer: Colorizer, folder: Folder, split: str, seen: int, seed: int = 0, temperature: float = 1.0
    ) -> None:
        self.colorizer, self.seed, self.temperature = colorizer, seed, temperature
        small, large = Crops(folder, split, seen), Crops(folder, split, SHOWN)
        self.lab = torch.stack([small[index] for index in range(len(small))])
        self.large = torch.stack([large[index] for index in range(len(large))])

    def _generator(self) -> torch.Generator:
        return self.colorizer.generator(self.seed)

    def _latents(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.colorizer.dims, generator=generator, device=generator.device)

    def _pictures(self, index: int, ab: Tensor) -> list[Pixels]:
        """Combine the lightness of a photograph with each of several colors (n, 2, s, s)."""
        return paint(self.large[index : index + 1, :1], ab)

    def _original(self, index: int) -> Pixels:
        return self._pictures(index, self.large[index : index + 1, 1:])[0]

    def _gray(self, index: int) -> Pixels:
        return self._pictures(index, torch.zeros(1, 2, SHOWN, SHOWN))[0]

    def _chosen(self, count: int) -> list[int]:
        """Return indices of photographs evenly spread over the split, chosen independently of the results."""
        places = np.linspace(0, len(self.lab) - 1, min(count, len(self.lab)))
        return sorted({round(float(place)) for place in places})

    def _flow(self) -> ig.Graph:
        model = self.colorizer.model
        if not isinstance(model, ig.Flow):
            raise TypeError(f"{type(model).__name__} has no latents: pictures of latents need the flow")
        return model.graph

    def encode(self, index: int) -> Tensor:
        """Return the latents (1, dims) of the colors of a photograph, on the device of the colorizer."""
        x, c = self.colorizer.prepare(self.lab[index : index + 1])
        with torch.no_grad():
            z: Tensor = self._flow()(x, c)[0]
        return z

    def decode(self, z: Tensor, index: int) -> Tensor:
        """Decode latents (n, dims) to colors (n, 2, s, s) for a photograph."""
        c = self.colorizer.prepare(self.lab[index : index + 1])[1]
        with torch.no_grad():
            x, _ = self._flow().inverse(z, c.expand(len(z), *c.shape[1:]).contiguous())
        return self.colorizer.lab_colors(x).to(self.lab.device)

    def diverse(self, count: int = 8, n: int = 6) -> Pixels:
        """Draw Fig. 11: gray, colorizations, and on the right the original."""
        generator, rows = self._generator(), []
        for index in self._chosen(count):
            samples = self.colorizer.sample(self.lab[index : index + 1, :1], n, self.temperature, generator=generator)[
                :, 0
            ]
            rows.append([self._gray(index), *self._pictures(index, samples), self._original(index)])
        drawn = f"colorizations at temperature {self.temperature:g}"
        return titled(grid(rows), (("gray", 1), (drawn, n), ("original", 1)))

    def scaling(self, count: int = 5) -> Pixels:
        """Draw Fig. 14: one latent code of typical norm for each photograph, scaled by 0 to 1.5."""
        rows, generator = [], self._generator()
        for index in self._chosen(count):
            z = self._latents(1, generator)
            z = z * (self.colorizer.dims**0.5 / z.norm())
            colors = self.decode(torch.cat([t * z for t in SCALES]), index)
            rows.append([self._gray(index), *self._pictures(index, colors)])
        return titled(grid(rows), (("gray", 1), *((f"{t:g} z" if t else "code 0", 1) for t in SCALES)))

    def transfer(self, count: int = 5) -> Pixels:
        """Draw Fig. 15: the latent code of the photograph of the column, decoded for the photograph of the row."""
        chosen = self._chosen(count)
        latents = torch.cat([self.encode(index) for index in chosen])
        blank = np.full((SHOWN, SHOWN, 3), 255, np.uint8)
        rows = [[blank, *(self._original(index) for index in chosen)]]
        for index in chosen:
            rows.append([self._gray(index), *self._pictures(index, self.decode(latents, index))])
        return titled(grid(rows), (("lightness of", 1), ("code of the colors of", len(chosen))))

    def interpolation(self, count: int = 5, steps: int = 7) -> Pixels:
        """Draw an interpolation between two latent codes, along the sphere on which latents lie."""
        rows, generator = [], self._generator()
        angles = torch.linspace(0, torch.pi / 2, steps, device=generator.device)[:, None]
        for index in self._chosen(count):
            first, second = self._latents(2, generator).split(1)
            colors = self.decode(torch.cos(angles) * first + torch.sin(angles) * second, index)
            rows.append([self._gray(index), *self._pictures(index, colors)])
        return titled(grid(rows), (("gray", 1), ("from one code to another", steps)))

    def failures(self, count: int = 6, n: int = 8) -> Pixels:
        """Draw Fig. 12: gray, worst, best of n, original, for the colorizations furthest from the original."""
        truth = self.colorizer.own_colors(self.lab)
        samples = self.colorizer.sample(self.lab[:, :1], n, self.temperature, generator=self._generator())
        errors = torch.stack([rmse_best(sample[None], truth) for sample in samples])
        rows = []
        for index in errors.amax(0).argsort(descending=True)[:count].tolist():
            worst, best = (
                samples[int(place), index] for place in (errors[:, index].argmax(), errors[:, index].argmin())
            )
            shown = self._pictures(index, torch.stack((worst, best)))
            rows.append([self._gray(index), *shown, self._original(index)])
        return titled(grid(rows), (("gray", 1), (f"worst of {n}", 1), (f"best of {n}", 1), ("original", 1)))

    def beside(self, other: Colorizer, count: int = 6, n: int = 3) -> Pixels:
        """Draw Fig. 16: colorizations of this model on the left, of another on the right, the original between them."""
        generator, rows = self._generator(), []
        for index in self._chosen(count):
            lightness = self.lab[index : index + 1, :1]
            left, right = (
                model.sample(lightness, n, self.temperature, generator=generator)[:, 0]
                for model in (self.colorizer, other)
            )
            pictures = [self._pictures(index, samples) for samples in (left, right)]
            rows.append([*pictures[0], self._original(index), *pictures[1]])
        return titled(
            grid(rows), (("with the conditioning network", n), ("original", 1), ("without conditioning network", n))
        )

    def alternatives(self, others: Mapping[str, Colorizer], count: int = 6, n: int = 2) -> Pixels:
        """Draw Fig. 13: gray, colorizations of this model and of each of the others, original.

        Arguments:
            others: Baselines by their kinds, in the order of the columns.
            count: Number of photographs. Default: 6.
            n: Number of colorizations by each model; one by the regression network, which has no others. Default: 2.
        """
        generator, rows, models = self._generator(), [], {"cinn": self.colorizer, **others}
        columns = {kind: 1 if kind == "cnn" else n for kind in models}
        for index in self._chosen(count):
            lightness = self.lab[index : index + 1, :1]
            row = [self._gray(index)]
            for kind, model in models.items():
                drawn = model.sample(lightness, columns[kind], self.temperature, generator=generator)
                row += self._pictures(index, drawn[:, 0])
            rows.append([*row, self._original(index)])
        named = ((SHORT[kind], columns[kind]) for kind in models)
        return titled(grid(rows), (("gray", 1), *named, ("original", 1)))

    def write(
        self, folder: Path, ablation: Colorizer | None = None, others: Mapping[str, Colorizer] | None = None
    ) -> list[Path]:
        """Write all pictures to a folder, including those of the ablation and the baselines if there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {
            name: getattr(self, name)() for name in ("diverse", "scaling", "transfer", "interpolation", "failures")
        }
        if ablation is not None:
            drawn["ablation"] = self.beside(ablation)
        if others:
            drawn["alternatives"] = self.alternatives(others)
        paths = [folder / f"{name}.png" for name in drawn]
        for path, image in zip(paths, drawn.values(), strict=True):
            Image.fromarray(image).save(path)
        return paths


def grid(rows: Sequence[Sequence[Pixels]], gap: int = GAP) -> Pixels:
    """Arrange pictures of equal size in a table on white."""
    height, width = rows[0][0].shape[:2]
    canvas = np.full((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            canvas[top : top + height, left : left + width] = picture
    return canvas


def titled(page: Pixels, titles: Titles, gap: int = GAP) -> Pixels:
    """Write titles above a grid, each in the middle of its columns."""
    column = (page.shape[1] + gap) / sum(count for _, count in titles)
    size = max(6, round(column / 10))
    strip = Image.new("RGB", (page.shape[1], 2 * size), "white")
    draw, font, left = ImageDraw.Draw(strip), ImageFont.load_default(size), 0.0
    for text, count in titles:
        draw.text((left + (count * column - gap) / 2, size), text, "#1a1a1a", font, anchor="mm")
        left += count * column
    return np.concatenate((np.asarray(strip), page))
