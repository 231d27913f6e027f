"""A folder of photographs as a data set: what can be used of it, a cache, splits, crops."""

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

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from colorization.lab import rgb_to_lab

EMBEDDED = Path(__file__).resolve().parent.parent / "data" / "photos"
SPLITS = ("train", "val", "test")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY_CHROMA = 2.0  # root mean square of (a, b) under which no eye sees colour
SMALLEST = 16  # pixels of the short side


@dataclass(frozen=True)
class Photo:
    """A photograph that can be used: where its shrunken pixels lie in the cache."""

    name: str
    split: str
    height: int
    width: int
    offset: int


@dataclass(frozen=True)
class Folder:
    """The photographs under a folder.

    Arguments:
        photos: those that can be used, in the order of their names.
        skipped: name and reason of each file that can't.
        pixels: the cache, all photographs one behind the other, (H, W, 3) each.
    """

    photos: tuple[Photo, ...]
    skipped: tuple[tuple[str, str], ...]
    pixels: Path

    def split(self, name: str) -> list[Photo]:
        """The photographs of ``train``, ``val`` or ``test``."""
        return [photo for photo in self.photos if photo.split == name]

    def report(self) -> str:
        """How many there are, and the list of those left out."""
        counts = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        lines = [f"{len(self.photos)} photographs ({counts}), {len(self.skipped)} files skipped"]
        return "\n".join(lines + [f"  skipped {name}: {reason}" for name, reason in self.skipped])


def open_folder(root: Path | str = EMBEDDED, *, edge: int = 256, cache: Path | str | None = None) -> Folder:
    """Scan a tree of images, once: what was decoded and scaled down is kept in a cache.

    Files below folders named ``train``, ``val`` and ``test`` keep their split; in any other tree a file's split follows
    from its name, 80 / 10 / 10, and does not change when others are added. Files that can't be read, are too small or
    have no colour are skipped and listed.

    Arguments:
        root: the folder.
        edge: short side to which larger photographs are scaled down.
        cache: where the cache lies; default: ``.cache/photos`` in the working directory.
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
    """Decode all files into the cache; the index is written last, so that half a cache is never used."""
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
    """A file that is no photograph in colour."""


def read_image(path: Path, edge: int | None = None, grey: bool = False) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a file, upright, scaled down to a short side of ``edge``.

    Raises:
        UnusableError: it can't be read, is smaller than 16 pixels, or (unless ``grey``) has no colour.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                image = _in_bytes(image)
            if image.mode in ("P", "RGBA", "LA", "PA"):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
    except Exception as error:  # a broken file makes its reader trip over anything: struct, lookups, arithmetic
        raise UnusableError(f"can't be read ({type(error).__name__})") from error
    if min(image.size) < SMALLEST:
        raise UnusableError(f"{image.width} x {image.height} pixels: too small")
    scale = 1.0 if edge is None else edge / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if not grey and _chroma(image) < GREY_CHROMA:
        raise UnusableError("grey")
    return np.asarray(image)


def _in_bytes(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8; a conversion by Pillow would clip at 255."""
    levels = np.asarray(image).astype(np.int64)
    return Image.fromarray(((levels + 128) // 257).clip(0, 255).astype(np.uint8))


def _chroma(image: Image.Image) -> float:
    small = np.asarray(image.resize((32, 32), Image.Resampling.BOX))
    return float(rgb_to_lab(to_tensor(small))[1:].square().sum(0).mean().sqrt())


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) bytes as a float32 tensor (3, H, W) in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def split_of(name: str) -> str:
    """The split of a file: the folder it lies in, else drawn by its name."""
    first = name.split("/")[0].lower()
    if first in SPLITS and "/" in name:
        return first
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "train" if draw < 0.8 else "val" if draw < 0.9 else "test"


class Crops:
    """Lab crops of photographs, ``(3, size, size)``.

    An index is a pair (photograph, seed): the crop is drawn from the seed alone, so that a run resumed draws what it
    would have drawn. The seed None takes the middle square, whole and unflipped.

    Arguments:
        folder: the photographs.
        split: which of them.
        size: pixels of a crop's side.
        area: the least part of the photograph that a drawn crop shows.
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
        """The middle squares of at most so many photographs, evenly spread over the split."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(int)
        return torch.stack([self[int(index)] for index in chosen])

    def image(self, index: int) -> NDArray[np.uint8]:
        """The cached pixels (H, W, 3) of a photograph."""
        if self._pixels is None:  # opened by each worker for itself; the pages are shared
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
    """A random part of an image: ``least`` to all of its area, sides 3:4 to 4:3, where the image has room for it."""
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    side = np.sqrt(height * width * rng.uniform(least, 1))
    w, h = min(side * np.sqrt(ratio), width), min(side / np.sqrt(ratio), height)
    w, h = min(w, h * 4 / 3), min(h, w * 4 / 3)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return (float(left), float(top), float(left + w), float(top + h)), bool(rng.integers(2))


class Drawing:
    """Batches of crops for the training loop, from the numbers of their photographs; seeds come from torch.

    Arguments:
        crops: of the training split.
        workers: how many processes cut them; 0: this one.
    """

    def __init__(self, crops: Crops, workers: int = 0) -> None:
        self.crops, self.workers = crops, workers
        self.pool = (
            ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (crops,)) if workers else None
        )  # fmt: skip

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.begin(rows)()

    def begin(self, rows: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Set the workers to a batch; what is returned waits for it."""
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


_worker_crops: list[Crops] = []  # of a worker process: sent once, not with every crop


def _start_worker(crops: Crops) -> None:
    """Ctrl-C is for the main process, which lets a step end and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _worker_crops.append(crops)


def _cut(index: tuple[int, int]) -> NDArray[np.float32]:
    """A crop as an array: a tensor would travel by shared memory, one file handle each."""
    pixels: NDArray[np.float32] = _worker_crops[0][index].numpy()
    return pixels


@dataclass(frozen=True)
class Statistics:
    """Offset and scale of L, a and b over the training split: their mean and standard deviation."""

    offset: tuple[float, float, float]
    scale: tuple[float, float, float]


def statistics(folder: Folder, size: int = 32) -> Statistics:
    """Measured on the middle squares of the training split (at most 2,000 of them)."""
    lab = Crops(folder, "train", size).spread(2000).double()
    mean, std = lab.mean((0, 2, 3)).tolist(), lab.std((0, 2, 3)).tolist()
    return Statistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
