"""The folder loader: what it skips, what it caches, what it draws."""

import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from colorization.photos import EMBEDDED, Crops, Folder, Photo, open_folder, read_image, split_of, statistics
from PIL import Image, ImageOps
from places import EXAMPLES


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def colorful(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Every kind of good and bad file, in a tree of several levels."""
    root = tmp_path / "photos"
    save(root / "train" / "deep" / "a.png", colorful())
    save(root / "train" / "b.JPG", colorful(30, 30, 1))
    save(root / "val" / "c.bmp", colorful(80, 20, 2))
    save(root / "test" / "d.webp", colorful(seed=3), lossless=True)
    save(root / "train" / "gray.png", np.repeat(colorful()[..., :1], 3, axis=2))
    save(root / "train" / "gray_mode.png", colorful()[..., 0])
    save(root / "train" / "tiny.png", colorful(4, 4))
    (root / "train" / "broken.jpg").write_bytes((root / "train" / "b.JPG").read_bytes()[:200])
    (root / "train" / "empty.png").write_bytes(b"")
    (root / "train" / "text.png").write_text("no image")
    (root / "train" / "notes.txt").write_text("not looked at")
    return root


def test_bad_and_gray_files_are_skipped_counted_and_listed(tree, tmp_path):
    folder = open_folder(tree, edge=24, cache=tmp_path / "cache")
    assert [photo.name for photo in folder.photos] == ["test/d.webp", "train/b.JPG", "train/deep/a.png", "val/c.bmp"]
    reasons = dict(folder.skipped)
    assert reasons["train/gray.png"] == reasons["train/gray_mode.png"] == "gray"
    assert "too small" in reasons["train/tiny.png"]
    assert all("can't be read" in reasons[f"train/{name}"] for name in ("broken.jpg", "empty.png", "text.png"))
    assert "4 photographs (2 train, 1 val, 1 test), 6 files skipped" in folder.report()
    assert "skipped train/broken.jpg: can't be read" in folder.report()


def test_the_cache_is_read_and_a_changed_folder_scanned_again(tree, tmp_path):
    first = open_folder(tree, edge=24, cache=tmp_path / "cache")
    stamp = first.pixels.stat().st_mtime_ns
    again = open_folder(tree, edge=24, cache=tmp_path / "cache")
    assert again == first
    assert again.pixels.stat().st_mtime_ns == stamp
    save(tree / "train" / "e.png", colorful(seed=9))
    assert len(open_folder(tree, edge=24, cache=tmp_path / "cache").photos) == 5


def test_photographs_are_scaled_down_never_up(tree, tmp_path):
    folder = open_folder(tree, edge=24, cache=tmp_path)
    sizes = {photo.name: (photo.height, photo.width) for photo in folder.photos}
    assert sizes.pop("val/c.bmp") == (80, 20)
    assert sizes == {"test/d.webp": (24, 36), "train/b.JPG": (24, 24), "train/deep/a.png": (24, 36)}


def test_cached_pixels_are_the_files(tree, tmp_path):
    crops = Crops(open_folder(tree, edge=256, cache=tmp_path), "test", 16)
    np.testing.assert_array_equal(crops.image(0), colorful(seed=3))


def test_transparency_is_shown_on_white_and_rotation_obeyed(tmp_path):
    root = tmp_path / "photos"
    pixels = np.dstack((colorful(20, 30), np.zeros((20, 30), np.uint8)))
    pixels[:, 15:, 3] = 255
    save(root / "train" / "alpha.png", pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    save(root / "train" / "lying.png", colorful(20, 30), exif=exif)
    crops = Crops(open_folder(root, cache=tmp_path / "cache"), "train", 16)
    assert crops.image(0)[:, :15].min() == 255
    assert crops.image(1).shape == (30, 20, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_gray_of_16_bits_keeps_its_shades(tmp_path, ending):
    levels = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(levels).save(path)
    pixels = read_image(path, gray=True)
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels - levels[..., None] / 257).max() <= 0.5


@pytest.mark.parametrize(
    "error", [struct.error, TypeError, EOFError, KeyError, IndexError, OverflowError, ZeroDivisionError]
)
def test_whatever_a_broken_file_makes_its_reader_raise_it_is_skipped(tree, tmp_path, monkeypatch, error):
    transpose = ImageOps.exif_transpose

    def stumbling(image):
        if image.format == "BMP":
            raise error("inside")
        return transpose(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", stumbling)
    folder = open_folder(tree, edge=24, cache=tmp_path / "cache")
    assert dict(folder.skipped)["val/c.bmp"] == f"can't be read ({error.__name__})"
    assert len(folder.photos) == 3


@pytest.mark.parametrize(("count", "most"), [(3999, 2000), (2000, 2000), (7, 2000), (7, 3)])
def test_at_most_so_many_photographs_are_taken(tmp_path, count, most):
    photo = Photo("train/a.png", "train", 1, 1, 0)
    pixels = tmp_path / "pixels"
    pixels.write_bytes(bytes(3))
    crops = Crops(Folder((photo,) * count, (), pixels), "train", 1)
    assert len(crops.spread(most)) == min(count, most)


def test_no_folder_and_no_photographs_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        open_folder(tmp_path / "none", cache=tmp_path)
    (tmp_path / "bare").mkdir()
    folder = open_folder(tmp_path / "bare", cache=tmp_path)
    with pytest.raises(ValueError, match="no photographs in the train split; 0 photographs"):
        Crops(folder, "train", 16)


def test_crops_follow_from_their_seed(tree, tmp_path):
    crops = Crops(open_folder(tree, cache=tmp_path), "train", 16)
    assert crops[0, 5].shape == (3, 16, 16)
    torch.testing.assert_close(crops[0, 5], crops[0, 5], rtol=0, atol=0)
    assert not torch.equal(crops[0, 5], crops[0, 6])
    torch.testing.assert_close(crops[0], crops[0, None], rtol=0, atol=0)


def test_splits_without_folders_are_80_10_10_and_do_not_depend_on_the_others():
    splits = [split_of(f"{k}.jpg") for k in range(5000)]
    shares = [splits.count(name) / 5000 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert split_of("train/x.jpg") == "train"
    assert split_of("Val/x.jpg") == "val"


def test_the_embedded_photographs(tmp_path):
    folder = open_folder(cache=tmp_path)
    assert [len(folder.split(split)) for split in ("train", "val", "test")] == [141, 10, 12]
    assert not folder.skipped
    credited = {line.split("\t")[0] for line in (EMBEDDED / "CREDITS.tsv").read_text().splitlines()[1:]}
    assert credited == {photo.name for photo in folder.photos}
    measured = statistics(folder)
    assert 40 < measured.offset[0] < 60
    assert all(5 < scale < 40 for scale in measured.scale)


WORKERS = """
import signal, sys, torch
from pathlib import Path
from colorization.photos import Crops, Drawing, open_folder

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell of the tests did
    drawing = Drawing(Crops(open_folder(cache=Path(sys.argv[1])), "train", 16), workers=2)
    drawing(torch.arange(8))
    print("loading", flush=True)
    try:
        while True:
            torch.zeros(1)
    except KeyboardInterrupt:
        (batch,) = drawing(torch.arange(8))
        drawing.close()
        print("still loading", len(batch), flush=True)
"""


@pytest.mark.slow
def test_loading_processes_survive_an_interrupt(tmp_path):
    examples = EXAMPLES
    script = tmp_path / "script.py"  # a file, because worker processes import it
    script.write_text(WORKERS)
    environment = {**os.environ, "PYTHONPATH": str(examples)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out == "still loading 8\n", err
    assert process.returncode == 0, err
