"""Folder of photographs as a data set: selection, cache, splits, crops."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from colorization.lab import rgb_to_lab

EMBEDDED = Path(__file__).resolve().parent.parent / "data" / "photos"
SPLITS = ("train", "val", "test")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GRAY_CHROMA = 2.0  # root mean square of (a, b) below which no color is visible
SMALLEST = 16  # pixels of the short side


@dataclass(frozen=True)
class Photo:
    """Usable photograph, with the location of its scaled-down pixels in the cache."""

    name: str
    split: str
    height: int
    width: int
    offset: int


@dataclass(frozen=True)
class Folder:
    """Photographs in a folder.

    Arguments:
        photos: Usable photographs, in the order of their names.
        skipped: Name of each unusable file, and the reason.
        pixels: Cache file, with the pixels (H, W, 3) of all photographs, one after the other.
    """

    photos: tuple[Photo, ...]
    skipped: tuple[tuple[str, str], ...]
    pixels: Path

    def split(self, name: str) -> list[Photo]:
        """Return the photographs of ``train``, ``val`` or ``test``."""
        return [photo for photo in self.photos if photo.split == name]

    def report(self) -> str:
        """Describe the number of photographs, and list the skipped files."""
        counts = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        lines = [f"{len(self.photos)} photographs ({counts}), {len(self.skipped)} files skipped"]
        return "\n".join(lines + [f"  skipped {name}: {reason}" for name, reason in self.skipped])


def open_folder(root: Path | str = EMBEDDED, *, edge: int = 256, cache: Path | str | None = None) -> Folder:
    """Open a tree of images; they are decoded and scaled down once, and cached.

    Files in folders named ``train``, ``val`` and ``test`` keep their split. Otherwise the split of a file is derived
    from its name, 80 / 10 / 10, so it does not change when files are added. Files that can't be read, are too small or
    have no color are skipped and listed.

    Arguments:
        root: Root folder. Default: the photographs in the repository.
        edge: Short side to which larger photographs are scaled down, in pixels. Default: 256.
        cache: Folder of the cache. Default: ``.cache/photos`` in the working directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder of photographs")
    store = Path(cache if cache is not None else Path(".cache") / "photos")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    index, pixels = (store / f"{_fingerprint(root, files, edge)}{end}" for end in (".json", ".rgb"))
    if not (index.exists() and pixels.exists()):
        store.mkdir(parents=True, exist_ok=True)
        _scan(root, files, edge, index, pixels)
    found = json.loads(index.read_text())
    photos = tuple(Photo(**photo) for photo in found["photos"])
    return Folder(photos, tuple((name, reason) for name, reason in found["skipped"]), pixels)


def _fingerprint(root: Path, files: list[Path], edge: int) -> str:
    digest = hashlib.sha256(f"1 {root.resolve()} {edge}".encode())
    for path in files:
        status = path.stat()
        digest.update(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _scan(root: Path, files: list[Path], edge: int, index: Path, pixels: Path) -> None:
    """Decode all files into the cache; the index is written last, so that an incomplete cache is never used."""
    photos, skipped, offset = [], [], 0
    partial = pixels.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as sink:
        for number, path in enumerate(files):
            name = path.relative_to(root).as_posix()
            try:
                image = read_image(path, edge)
            except UnusableError as error:
                skipped.append((name, str(error)))
                continue
            sink.write(image.tobytes())
            height, width, _ = image.shape
            photos.append(asdict(Photo(name, split_of(name), height, width, offset)))
            offset += image.size
            if sys.stderr.isatty() and number % 50 == 0:
                print(f"\rreading photographs {number}/{len(files)}", end="", file=sys.stderr)
    partial.replace(pixels)
    partial = index.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"photos": photos, "skipped": skipped}))
    partial.replace(index)


class UnusableError(ValueError):
    """A file is not a photograph in color."""


def read_image(path: Path | BinaryIO, edge: int | None = None, gray: bool = False) -> NDArray[np.uint8]:
    """Read the pixels (H, W, 3) of a path or an open file, upright and scaled down to a short side of ``edge``.

    Raises:
        UnusableError: If the file can't be read, is smaller than 16 pixels, or (unless ``gray``) has no color.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                image = _in_bytes(image)
            if image.mode in ("P", "RGBA", "LA", "PA"):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
    except FileNotFoundError as error:
        raise UnusableError("there is no such file") from error
    except Exception as error:  # readers of broken files raise errors of any class
        raise UnusableError(f"can't be read ({type(error).__name__})") from error
    if min(image.size) < SMALLEST:
        raise UnusableError(f"{image.width} x {image.height} pixels: too small")
    scale = 1.0 if edge is None else edge / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if not gray and _chroma(image) < GRAY_CHROMA:
        raise UnusableError("gray")
    return np.asarray(image)


def _in_bytes(image: Image.Image) -> Image.Image:
    """Convert 16-bit gray to 8 bits; the conversion of Pillow would clip at 255."""
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels + 128) // 257).clip(0, 255).astype(np.uint8))


def _chroma(image: Image.Image) -> float:
    small = np.asarray(image.resize((32, 32), Image.Resampling.BOX))
    return float(rgb_to_lab(to_tensor(small))[1:].square().sum(0).mean().sqrt())


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Convert bytes (H, W, 3) to a float32 tensor (3, H, W) in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def split_of(name: str) -> str:
    """Return the split of a file: that of its folder, or one derived from its name."""
    first = name.split("/")[0].lower()
    if first in SPLITS and "/" in name:
        return first
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "train" if draw < 0.8 else "val" if draw < 0.9 else "test"


class Crops:
    """Lab crops of photographs, ``(3, size, size)``.

    An index is a pair (photograph, seed). The crop depends on the seed only, so a resumed run draws the same crops. If
    the seed is None, it is the central square, not flipped.

    Arguments:
        folder: Photographs.
        split: Split of the folder.
        size: Side of a crop, in pixels.
        area: Minimum fraction of the photograph that a random crop shows. Default: 0.3.
    """

    def __init__(self, folder: Folder, split: str, size: int, area: float = 0.3) -> None:
        self.photos = folder.split(split)
        self.path, self.size, self.area = folder.pixels, size, area
        self._pixels: NDArray[np.uint8] | None = None
        if not self.photos:
            advice = f"add photographs, or sort them into folders {', '.join(SPLITS)}"
            raise ValueError(f"no photographs in the {split} split; {folder.report()}\n{advice}")

    def __len__(self) -> int:
        return len(self.photos)

    def spread(self, most: int) -> Tensor:
        """Return the central squares of at most ``most`` photographs, evenly spread over the split."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(int)
        return torch.stack([self[int(index)] for index in chosen])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the cached pixels (H, W, 3) of a photograph."""
        if self._pixels is None:  # each worker opens the file; the pages are shared
            self._pixels = np.memmap(self.path, mode="r", dtype=np.uint8)
        photo = self.photos[index]
        end = photo.offset + photo.height * photo.width * 3
        return self._pixels[photo.offset : end].reshape(photo.height, photo.width, 3)

    def __getitem__(self, index: tuple[int, int | None] | int) -> Tensor:
        number, seed = index if isinstance(index, tuple) else (index, None)
        pixels = self.image(number)
        height, width = pixels.shape[:2]
        if seed is None:
            side = float(min(height, width))
            box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
        else:
            box, flip = _draw(height, width, self.area, np.random.default_rng(seed))
            pixels = pixels[:, ::-1] if flip else pixels
        image = Image.fromarray(np.ascontiguousarray(pixels))
        filtered = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        return rgb_to_lab(to_tensor(np.asarray(filtered)))


Box = tuple[float, float, float, float]


def _draw(height: int, width: int, least: float, rng: np.random.Generator) -> tuple[Box, bool]:
    """Draw a box with ``least`` to all of the area and an aspect ratio of 3:4 to 4:3, as far as it fits, and a flip."""
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    side = np.sqrt(height * width * rng.uniform(least, 1))
    w, h = min(side * np.sqrt(ratio), width), min(side / np.sqrt(ratio), height)
    w, h = min(w, h * 4 / 3), min(h, w * 4 / 3)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return (float(left), float(top), float(left + w), float(top + h)), bool(rng.integers(2))


class Drawing:
    """Batches of crops for the training loop, from indices of photographs and seeds drawn by torch.

    Arguments:
        crops: Crops of the training split.
        workers: Number of processes that cut crops. Default: 0, for this process.
    """

    def __init__(self, crops: Crops, workers: int = 0) -> None:
        self.crops, self.workers = crops, workers
        self.pool = (
            ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (crops,)) if workers else None
        )  # fmt: skip

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.begin(rows)()

    def begin(self, rows: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Start the workers on a batch; the returned function waits for it."""
        seeds = torch.randint(2**31, (len(rows),))
        indices = list(zip(rows.tolist(), seeds.tolist(), strict=True))
        if self.pool is None:
            return lambda: (torch.stack([self.crops[index] for index in indices]),)
        cut = self.pool.map(_cut, indices, chunksize=-(-len(indices) // self.workers))
        return lambda: (torch.stack([torch.from_numpy(array) for array in cut]),)

    def close(self) -> None:
        """End the worker processes."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


_worker_crops: list[Crops] = []  # in a worker process, sent once instead of with every crop


def _start_worker(crops: Crops) -> None:
    """Ignore Ctrl-C, which the main process handles: it finishes a step and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker_crops.append(crops)


def _cut(index: tuple[int, int]) -> NDArray[np.float32]:
    """Return a crop as an array, because a tensor would need shared memory and a file handle."""
    pixels: NDArray[np.float32] = _worker_crops[0][index].numpy()
    return pixels


@dataclass(frozen=True)
class Statistics:
    """Offset and scale of L, a and b over the training split: their mean and standard deviation."""

    offset: tuple[float, float, float]
    scale: tuple[float, float, float]


def statistics(folder: Folder, size: int = 32) -> Statistics:
    """Compute statistics on the central squares of the training split (at most 2,000)."""
    lab = Crops(folder, "train", size).spread(2000).double()
    mean, std = lab.mean((0, 2, 3)).tolist(), lab.std((0, 2, 3)).tolist()
    return Statistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
