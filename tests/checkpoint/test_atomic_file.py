"""The file of a checkpoint: its name, its mode, links, and files that are no regular ones."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import invgraph as ig


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


PLAIN = nn.Linear(1, 1)


def test_a_path_that_the_file_system_cannot_name_is_refused(tmp_path: Path) -> None:
    for call in (lambda name: ig.save(name, PLAIN), ig.load):
        with pytest.raises(ig.CheckpointError, match="not a valid file name"):
            call(str(tmp_path / "\ud800"))


def test_a_link_stays_a_link_and_the_mode_is_the_users(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    before = os.umask(0o027)
    try:
        ig.save(link, PLAIN)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    ig.load(link, PLAIN)


def test_a_file_keeps_the_mode_that_its_owner_gave_it(path: Path) -> None:
    ig.save(path, PLAIN)
    for mode in (0o600, 0o664):
        path.chmod(mode)
        ig.save(path, PLAIN)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def special_files(folder: Path) -> Iterator[Path]:
    """A named pipe, a socket, and, where this process may make one, a device: all in the test's own folder."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    yield pipe
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):  # the path of a socket must be short
        server.bind("socket")
        yield folder / "socket"
    device = folder / "device"
    with contextlib.suppress(PermissionError):
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        yield device


def test_devices_pipes_and_sockets_are_neither_replaced_nor_read(tmp_path: Path) -> None:
    """A checkpoint is renamed over its target, and the machine's null device must survive ``save("/dev/null")``."""
    for special in special_files(tmp_path):
        link = tmp_path / f"link_to_{special.name}"
        link.symlink_to(special)
        before = special.lstat()
        for path in (special, link):
            with pytest.raises(ig.CheckpointError, match=r"not a regular file\n  use .*: nothing was written"):
                ig.save(path, PLAIN)
            with pytest.raises(ig.CheckpointError, match=r"not a regular file\n  use .*: nothing was loaded"):
                ig.load(path, PLAIN)
        assert special.lstat() == before
        assert not list(tmp_path.glob(".*.tmp"))


def test_leftovers_of_killed_writers_are_swept_after_an_hour(path: Path) -> None:
    old, young = (path.with_name(f".{path.name}.{digit * 16}.tmp") for digit in "ab")
    foreign = path.with_name(f".other.{'c' * 16}.tmp")
    for file in (old, young, foreign):
        file.write_bytes(b"x")
        os.utime(file, (1, 1)) if file is not young else None
    ig.save(path, PLAIN)
    assert [file.exists() for file in (old, young, foreign)] == [False, True, True]
