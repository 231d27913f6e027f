"""Files that are whole or not there: written beside the old one, synced to the disk, renamed over it."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from invgraph.errors import ArgumentError, CheckpointError

_STALE_SECONDS = 3600
_ADVICE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than allowed here",
    errno.EACCES: "no permission to do so",
    errno.EPERM: "no permission to do so",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder in place of the file",
    errno.ENAMETOOLONG: "the name is too long",
}


def as_path(where: str, path: object) -> Path:
    """The path, with symbolic links followed, so that a link stays one when its file is replaced."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(where, f"path={path!r}", "a path must be a str or a pathlib.Path")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise ArgumentError(where, f"path={path!r}", "a path must be a str or a pathlib.Path")
    if not name or "\0" in name:
        raise CheckpointError(where, f"path={name!r}", "not the name of a file")
    return Path(os.path.realpath(name))


def write(where: str, path: Path, pieces: Iterable[Any]) -> None:
    """Put the pieces (bytes) into the file, all or nothing: at any moment the old content or the new one is there.

    Raises:
        CheckpointError: it can't be written; the old file is as it was.
    """
    require_regular(where, path, "nothing was written")
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        _sweep(path)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with open(handle, "wb") as file:
                with suppress(FileNotFoundError):  # a file that is replaced keeps its mode
                    os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # an interrupt too leaves nothing behind
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _refusal(where, error, "nothing was written; an earlier file is as it was") from error


def require_regular(where: str, path: Path, state: str) -> None:
    """Refuse what exists and is no regular file: renaming over a device or a pipe takes it away from the machine.

    Arguments:
        where: The function that was called, for the error.
        path: The target, with symbolic links followed.
        state: What is true after the refusal, such as ``"nothing was written"``.

    Raises:
        CheckpointError: The path is a folder, a device, a pipe or a socket, or can't be looked at.
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
        raise CheckpointError(where, f"{_kind(mode)}, no regular file", f"give the path of an ordinary file: {state}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something unknown")


def read(where: str, path: Path) -> bytes:
    """The file's bytes.

    Raises:
        CheckpointError: there is no such file, it is no regular one, or it can't be read.
    """
    require_regular(where, path, "nothing was loaded")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(where, error, "nothing was loaded") from error


def _refusal(where: str, error: OSError, state: str) -> CheckpointError:
    reason = error.strerror or type(error).__name__
    return CheckpointError(where, reason, f"{_ADVICE.get(error.errno or 0, 'the system refused')}: {state}")


def _sweep(path: Path) -> None:
    """Remove what writers that were killed an hour ago or more left behind."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if left.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)


def _sync_folder(folder: Path) -> None:
    """Make the renaming last; file systems without folders to sync are as they are."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
