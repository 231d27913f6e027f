"""Reader of IDX files, the format of MNIST: a magic number, the sizes, then the bytes."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTES = 0x08


class IDXError(ValueError):
    """A file is not the expected IDX file; the message has three lines: file, what was found, what to do."""

    def __init__(self, path: Path, found: str, advice: str) -> None:
        super().__init__(f"{path}\n  found: {found}\n  {advice}")


def read_idx(path: str | Path, ndim: int | None = None) -> NDArray[np.uint8]:
    """Read the array of unsigned bytes in an IDX file, which may be compressed with gzip.

    Arguments:
        path: Path of the file.
        ndim: Required number of dimensions. Default: any.

    Raises:
        IDXError: If the file is damaged, truncated, or has another format.
        FileNotFoundError: If the file does not exist.
    """
    path = Path(path)
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        found = f"it starts with the bytes {content[:4].hex(' ') or '(none)'}"
        raise IDXError(path, found, "an IDX file starts with 00 00: is this another file? Fetch it again")
    kind, dimensions = content[2], content[3]
    if kind != _UNSIGNED_BYTES:
        raise IDXError(path, f"numbers of type 0x{kind:02x}", "only unsigned bytes, type 0x08, are read here")
    if dimensions == 0 or (ndim is not None and dimensions != ndim):
        wanted = "at least one" if ndim is None else ndim
        advice = f"expected {wanted}: are the files of pictures (3) and of labels (1) mixed up?"
        raise IDXError(path, f"an array of {dimensions} dimensions", advice)
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise IDXError(path, f"only {len(content)} bytes", f"its header alone has {start}: fetch the file again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    found_bytes = len(content) - start
    if found_bytes != prod(shape):
        found = f"{found_bytes:,} bytes of data, but its header announces {' x '.join(map(str, shape))}"
        raise IDXError(path, found, f"{prod(shape):,} bytes were expected: the file is damaged, fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        found = f"a gzip file of {len(content):,} bytes that doesn't unpack ({error})"
        raise IDXError(path, found, "the file is damaged or cut short: fetch it again") from error
