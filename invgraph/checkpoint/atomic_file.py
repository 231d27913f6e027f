"""Atomic writes: a temporary file is written, synced to disk, and renamed over the old file."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from invgraph.errors import ArgumentError, CheckpointError

_STALE_SECONDS = 3600
_ADVICE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "the file would exceed the maximum size",
    errno.EACCES: "no permission to do so",
    errno.EPERM: "no permission to do so",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a parent in the path is a file, not a folder",
    errno.EISDIR: "the path is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def as_path(where: str, path: object) -> Path:
    """Resolve symbolic links of a path, so that replacing the file keeps the links."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(where, f"path={path!r}", "a path must be a str or a pathlib.Path")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise ArgumentError(where, f"path={path!r}", "a path must be a str or a pathlib.Path")
    try:
        os.fsencode(name)
        valid = bool(name) and "\0" not in name
    except UnicodeEncodeError:  # a surrogate that is not a pair
        valid = False
    if not valid:
        raise CheckpointError(where, f"path={name!r}", "not a valid file name")
    return Path(os.path.realpath(name))


def write(
    where: str, path: Path, pieces: Iterable[Any], *, seal: Callable[[], tuple[int, bytes]] | None = None
) -> None:
    """Write pieces of bytes to a file atomically: at any time it has either the old content or the new.

    Arguments:
        where: Function named in errors.
        path: Path of the file, with symbolic links resolved.
        pieces: The content.
        seal: Called after the last piece; returns bytes and the place where they replace what was written. Default:
            None.

    Raises:
        CheckpointError: If the file can't be written; the old one is unchanged.
    """
    require_regular(where, path, "nothing was written")
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        _sweep(path)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with open(handle, "wb") as file:
                with suppress(FileNotFoundError):  # keep the mode of the file that is replaced
                    os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
                for piece in pieces:
                    file.write(piece)
                if seal is not None:
                    place, replacement = seal()
                    file.seek(place)
                    file.write(replacement)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # including interrupts
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _refusal(where, error, "nothing was written, and an existing file is unchanged") from error


def require_regular(where: str, path: Path, state: str) -> None:
    """Raise CheckpointError if the path exists and is not a regular file: renaming would remove a device or a pipe.

    Arguments:
        where: Function named in errors.
        path: Target, with symbolic links resolved.
        state: State after the error, such as ``"nothing was written"``.

    Raises:
        CheckpointError: If the path is a folder, a device, a pipe or a socket, or can't be accessed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refusal(where, error, state) from error
    if stat.S_ISDIR(mode):
        raise _refusal(where, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), state)
    if not stat.S_ISREG(mode):
        raise CheckpointError(where, f"{_kind(mode)}, not a regular file", f"use the path of a regular file: {state}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something unknown")


def read(where: str, path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        CheckpointError: If the file does not exist, is not a regular one, or can't be read.
    """
    require_regular(where, path, "nothing was loaded")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(where, error, "nothing was loaded") from error


def _refusal(where: str, error: OSError, state: str) -> CheckpointError:
    reason = error.strerror or type(error).__name__
    return CheckpointError(where, reason, f"{_ADVICE.get(error.errno or 0, 'the operating system refused')}: {state}")


def _sweep(path: Path) -> None:
    """Remove temporary files that are more than an hour old, left behind by killed processes."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if left.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)


def _sync_folder(folder: Path) -> None:
    """Sync the renaming to disk; file systems that can't sync folders are ignored."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
