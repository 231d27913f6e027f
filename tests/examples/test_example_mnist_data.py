"""The digits: the reader of their files, and what the examples make of them."""

import gzip
import struct

import numpy as np
import pytest
import torch
from digits import data
from digits.idx import IDXError, read_idx


def idx(array, kind=0x08, shape=None):
    shape = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + array.tobytes()


PICTURES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


class TestReader:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
    @pytest.mark.parametrize("array", [PICTURES, PICTURES[0, 0], PICTURES[:0]], ids=["pictures", "labels", "empty"])
    def test_gives_back_what_was_written(self, tmp_path, pack, array):
        path = tmp_path / "file"
        path.write_bytes(pack(idx(array)))
        read = read_idx(path, ndim=array.ndim)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)
        read[...] = 0  # the caller's own, not a view of the file

    @pytest.mark.parametrize(
        ("content", "found", "advice"),
        [
            (b"", "(none)", "starts with 00 00"),
            (b"\x89PNG\r\n", "89 50 4e 47", "another file"),
            (b"\0\0\x08", "00 00 08", "starts with 00 00"),
            (idx(PICTURES, kind=0x0D), "type 0x0d", "only unsigned bytes"),
            (idx(PICTURES[0, 0]), "1 dimensions", "mixed up"),
            (struct.pack(">BBBB", 0, 0, 8, 0), "0 dimensions", "mixed up"),
            (idx(PICTURES)[:10], "only 10 bytes", "header alone has 16"),
            (idx(PICTURES)[:-1], "23 bytes of data", "24 bytes were expected"),
            (idx(PICTURES) + b"\0", "25 bytes of data", "24 bytes were expected"),
            (idx(PICTURES, shape=(2, 3, 2**31)), "2 x 3 x 2147483648", "damaged"),
            (gzip.compress(idx(PICTURES), mtime=0)[:-9], "doesn't unpack", "cut short"),
            (gzip.compress(idx(PICTURES), mtime=0)[:12], "doesn't unpack", "cut short"),
            (gzip.compress(idx(PICTURES), mtime=0)[:-8] + b"\0" * 8, "doesn't unpack", "damaged"),
            (b"\x1f\x8b\x08" + b"\xff" * 40, "doesn't unpack", "damaged"),
        ],
    )
    def test_tells_what_is_wrong(self, tmp_path, content, found, advice):
        path = tmp_path / "damaged.gz"
        path.write_bytes(content)
        with pytest.raises(IDXError) as caught:
            read_idx(path, ndim=3)
        where, given, told = str(caught.value).split("\n")
        assert where == str(path)
        assert found in given
        assert advice in told

    def test_a_missing_file_is_python_s_own_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_idx(tmp_path / "none")

    def test_every_cut_of_a_real_file_is_refused(self, tmp_path):
        whole = (data.FOLDER / "t10k-labels-idx1-ubyte.gz").read_bytes()
        path = tmp_path / "cut.gz"
        for size in range(0, len(whole), 97):
            path.write_bytes(whole[:size])
            with pytest.raises(IDXError):
                read_idx(path)


class TestData:
    def test_mnist_is_the_real_one(self):
        train, test = data.load("train"), data.load("test")
        assert train.pixels.shape == (60_000, 28, 28)
        assert test.pixels.shape == (10_000, 28, 28)
        assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
        pixels = train.pixels.float() / 255
        assert pixels.mean().item() == pytest.approx(data.MEAN, abs=1e-4)
        assert pixels.std().item() == pytest.approx(data.STD, abs=1e-4)

    def test_files_that_do_not_belong_together(self, tmp_path):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((3, 28, 28), np.uint8)))
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(4, np.uint8)))
        with pytest.raises(IDXError, match="expected 3 labels"):
            data.load("test", tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.full(3, 10, np.uint8)))
        with pytest.raises(IDXError, match="labels up to 10"):
            data.load("test", tmp_path)
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((3, 8, 8), np.uint8)))
        with pytest.raises(IDXError, match="another data set"):
            data.load("test", tmp_path)

    def test_units_there_and_back(self):
        pixels = torch.rand(3, 28, 28, dtype=torch.float64)
        torch.testing.assert_close(data.to_pixels(data.standardize(pixels))[:, 0], pixels, rtol=0, atol=1e-15)

    def test_conditions_are_one_hot_with_mean_0_and_deviation_1(self):
        conditions = data.condition(torch.arange(10))
        assert conditions.argmax(1).tolist() == list(range(10))
        assert conditions.dtype == torch.float32
        assert conditions.unique().numel() == 2
        torch.testing.assert_close(conditions.mean(0), torch.zeros(10), rtol=0, atol=1e-6)
        torch.testing.assert_close(conditions.std(0, correction=0), torch.ones(10), rtol=0, atol=1e-6)
