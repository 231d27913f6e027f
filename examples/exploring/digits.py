"""Digits of the page: one latent code in all ten classes, moved along the axes of the latents."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from digits import data, judge
from digits.latents import components_of
from digits.measure import noisy
from PIL import Image, UnidentifiedImageError
from torch import Tensor

import invgraph as ig
from exploring.request import RefusedError, as_url, number, whole

MEASURED = 10_000  # test digits from which the axes of the latents are computed, as in latent_axes.png
BOX = 20  # side of the box that a digit of MNIST fills, in the middle of 28 pixels
REACH = 3.0  # standard deviations that a latent axis can be moved


class DigitExplorer:
    """A trained flow of digits, bound to the ten classes.

    Arguments:
        flow: Flow from ``examples/mnist_cinn.py``.
        noise: Standard deviation of its training noise, in units of the pixel range.
    """

    def __init__(self, flow: ig.Flow, noise: float) -> None:
        self.flow, self.noise = flow.requires_grad_(False), noise
        self.conditions = data.condition(torch.arange(10))
        self.bound = flow.graph.bind(self.conditions)
        self.judge, self.test = judge.load(), data.load("test")
        _, components, self.names = components_of(flow, MEASURED)
        self.components = components.float()

    def pick(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with a digit of the test set, its pixels and its label."""
        index = whole(given, "index", 0, len(self.test.labels) - 1, 0)
        return self._source(self.test.pixels[index], int(self.test.labels[index]))

    def recognize(self, upload: bytes) -> dict[str, Any]:
        """Answer with a drawn digit, centered as in MNIST, and the class that the judge sees in it."""
        pixels = centered(upload)
        label = self.judge(data.standardize(pixels[None].float() / 255)).argmax().item()
        return self._source(pixels, int(label))

    def _source(self, pixels: Tensor, label: int) -> dict[str, Any]:
        encoded = base64.b64encode(pixels.numpy().tobytes()).decode()
        return {"pixels": encoded, "label": label, "picture": as_url(255 - pixels.numpy())}

    def move(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with pictures of one latent code in all ten classes."""
        z = number(given, "temperature", 0, 1.5, 1.0) * self._latent(given)
        axes = given.get("axes", [])
        if not isinstance(axes, list) or len(axes) > len(self.components):
            raise RefusedError(f"axes: expected a list of at most {len(self.components)} numbers")
        for number_of_axis, component in enumerate(self.components[: len(axes)]):
            z = z + number({"axis": axes[number_of_axis]}, "axis", -REACH, REACH, 0.0) * component
        with torch.no_grad():
            x = self.bound.inverse(z.expand(1, 10, -1))[0][0]
        if given.get("denoise", True):
            x = self.flow.denoise(x, self.conditions, sigma=self.noise / data.STD)
        pictures = (255 * (1 - data.to_pixels(x)[:, 0])).round().byte().numpy()
        return {"pictures": [as_url(picture) for picture in pictures]}

    def _latent(self, given: Mapping[str, Any]) -> Tensor:
        """Return the code (784,) of the given digit, or a random one if there is none."""
        generator = torch.Generator().manual_seed(whole(given, "seed", 0, 2**31, 0))
        if given.get("pixels") is None:
            return torch.randn(784, generator=generator)
        try:
            content = base64.b64decode(given["pixels"], validate=True)
            pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(1, 28, 28)
        except (TypeError, ValueError, RuntimeError, binascii.Error) as error:
            raise RefusedError("pixels: not 28 x 28 bytes in base64") from error
        label = torch.tensor([whole(given, "label", 0, 9, 0)])
        with torch.no_grad():
            z: Tensor = self.flow.graph(noisy(pixels, self.noise, generator), data.condition(label))[0][0]
        return z


def centered(upload: bytes) -> Tensor:
    """Return a drawing, dark on light, as bytes (28, 28) like those of MNIST: in a box of 20, its mass in the middle.

    Raises:
        RefusedError: If the upload is no picture, or an empty one.
    """
    try:
        with Image.open(io.BytesIO(upload)) as opened:
            flat = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("L")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise RefusedError("this is not a picture: draw a digit on the canvas") from error
    ink = 255 - np.asarray(flat)
    rows, columns = (np.flatnonzero((ink > 40).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise RefusedError("the canvas is empty: draw a digit first")
    cut = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = BOX / max(cut.size)
    small = np.asarray(cut.resize([max(1, round(side * scale)) for side in cut.size], Image.Resampling.BOX))
    weight = small.astype(float) / max(1, small.sum(dtype=float))
    top, left = (
        min(max(0, round(13.5 - float((weight.sum(1 - axis) * np.arange(side)).sum()))), 28 - side)
        for axis, side in enumerate(small.shape)
    )
    page = np.zeros((28, 28), np.uint8)
    page[top : top + small.shape[0], left : left + small.shape[1]] = small
    return torch.from_numpy(page)
