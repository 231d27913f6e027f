"""Photographs of the page: eight colorizations, scaled codes, and the colors of another picture."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from colorization.colorizer import Colorizer
from colorization.infer import Pixels, paint, square
from colorization.lab import rgb_to_lab
from colorization.photos import UnusableError, read_image, to_tensor
from colorization.presets import Preset
from PIL import Image
from torch import Tensor

from exploring.request import RefusedError, as_url, number, whole

COUNT = 8  # colorizations at once
SHOWN = 320  # long side of a picture on the page
GUIDED = 128  # long side up to which colors follow the edges of the lightness: enough, and fast
KEPT = 16  # photographs in memory
LARGEST = 50_000_000  # pixels of an upload


@dataclass
class Photo:
    """A photograph whose lightness the flow is bound to.

    Arguments:
        pixels: Photograph (H, W, 3), as it is shown.
        lightness: Its lightness (1, 1, H, W).
        bound: The flow under the lightness of the photograph.
        code: The latent code (dims,) of its own colors.
    """

    pixels: Pixels
    lightness: Tensor
    bound: Any
    code: Tensor


class PhotoExplorer:
    """A trained colorizer, bound to the lightness of each photograph.

    Arguments:
        colorizer: Colorizer with a flow, in evaluation mode.
    """

    def __init__(self, colorizer: Colorizer) -> None:
        self.colorizer = colorizer.requires_grad_(False)
        self.side = Preset(**colorizer.config["preset"]).seen
        self.photos: OrderedDict[int, Photo] = OrderedDict()
        self._next = 0

    def upload(self, content: bytes) -> dict[str, Any]:
        """Answer with the number of a photograph, and its gray version.

        Raises:
            RefusedError: If the upload is not a picture, or one that is too large or too small.
        """
        pixels = _shown(_read(content))
        lightness = rgb_to_lab(to_tensor(pixels))[None, :1]
        with torch.no_grad():
            x, c = self.colorizer.prepare(square(pixels, self.side))
            bound = self.colorizer.model.graph.bind(c)
            code = bound(x[None])[0][0, 0]
        self._next += 1
        self.photos[self._next] = Photo(pixels, lightness, bound, code)
        while len(self.photos) > KEPT:
            self.photos.popitem(last=False)
        gray = paint(lightness, torch.zeros(1, 2, 4, 4), "bicubic")[0]
        return {"photo": self._next, "gray": as_url(gray, "JPEG"), "original": as_url(pixels, "JPEG")}

    def colorize(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with eight colorizations, from random codes times ``scale``."""
        photo = self._photo(given, "photo")
        generator = torch.Generator().manual_seed(whole(given, "seed", 0, 2**31, 0))
        z = torch.randn(COUNT, self.colorizer.dims, generator=generator)
        z = z * (self.colorizer.dims**0.5 / z.norm(dim=1, keepdim=True))  # of typical length, as in Fig. 14
        return self._decode(photo, number(given, "scale", 0, 1.5, 0.7) * z)

    def transfer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with a photograph in the colors of another: its code, times ``scale``, under this lightness."""
        photo, other = self._photo(given, "photo"), self._photo(given, "colors_of")
        return self._decode(photo, number(given, "scale", 0, 1.5, 1.0) * other.code[None])

    def _photo(self, given: Mapping[str, Any], name: str) -> Photo:
        key = whole(given, name, 0, 2**31, 0)
        if key not in self.photos:
            raise RefusedError("this photograph is not here any more: choose it again")
        self.photos.move_to_end(key)
        return self.photos[key]

    def _decode(self, photo: Photo, z: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            x = photo.bound.inverse(z[:, None])[0][:, 0]
        pictures = paint(photo.lightness, self.colorizer.lab_colors(x), guided=GUIDED)
        return {"pictures": [as_url(picture, "JPEG") for picture in pictures]}


def _read(content: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size
        if width * height > LARGEST:
            raise RefusedError(f"{width} x {height} pixels are too many: scale the picture down")
        return read_image(io.BytesIO(content), gray=True)
    except UnusableError as error:
        raise RefusedError(f"this picture {error}: choose a JPEG, PNG or WebP file of at least 16 pixels") from error
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedError("this file is not a picture that can be read: choose a JPEG, PNG or WebP file") from error


def _shown(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    return np.asarray(image)
