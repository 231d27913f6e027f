"""Damaged, foreign and malicious files, disks that are full or closed: always CheckpointError, never half a load."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import safetensors.torch
import torch
from places import ROOT, SUPPORT
from torch import nn
from training import digest, make_flow, write_often

import invgraph as ig
from invgraph.checkpoint.checkpoint import _MARK

ZEROS = b"0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def small() -> ig.Graph:
    """A graph whose checkpoint is small enough to be damaged in every bit."""
    x = ig.InputNode(2, name="x")
    args = {"transform": ig.Additive(), "subnet": ig.nets.MLP(hidden=1), "sides": 1}
    return ig.Graph(x, ig.Node(x, ig.Coupling, args, name="a"))


def refused(path: Path, graph: nn.Module | None = None) -> str:
    """The words of the refusal; the graph must be as it was."""
    before = digest(graph) if graph else None
    with pytest.raises(ig.CheckpointError) as caught:
        ig.load(path, graph)
    assert (digest(graph) if graph else None) == before
    words = str(caught.value)
    assert len(words.splitlines()) == 3, words
    return words


def test_a_file_cut_short_at_any_byte_is_refused(path: Path) -> None:
    ig.save(path, small(), training={"step": 3})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path)
    path.write_bytes(content)
    ig.load(path, small())
    print(f"{len(content)} truncations refused")


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_one_flipped_bit_anywhere_is_refused(path: Path, bits: int) -> None:
    """One bit in every byte; in the slow suite, every bit."""
    graph = small()
    ig.save(path, graph)
    content = bytearray(path.read_bytes())
    words: dict[str, int] = {}
    for place in range(len(content)):
        for bit in range(bits) if bits == 8 else (place % 8,):
            content[place] ^= 1 << bit
            path.write_bytes(content)
            reason = refused(path).splitlines()[2]
            words[reason] = words.get(reason, 0) + 1
            content[place] ^= 1 << bit
    path.write_bytes(content)
    ig.load(path, graph)
    assert sum(words.values()) == bits * len(content)
    print(f"{sum(words.values())} flipped bits in {len(content)} bytes refused")


@pytest.mark.parametrize("junk", [b"\0", b"junk", bytes(4096)], ids=["one", "four", "page"])
def test_bytes_before_or_after_are_refused(path: Path, junk: bytes) -> None:
    ig.save(path, small())
    content = path.read_bytes()
    for changed in (content + junk, junk + content, content + content, content[: len(content) // 2] + junk + content):
        path.write_bytes(changed)
        refused(path, small())


class Bomb:
    """A pickle that leaves a file behind if anything opens it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def bombs(folder: Path, trace: Path) -> Iterator[Path]:
    bomb = Bomb(trace)
    for protocol, name in enumerate(("model.safetensors", "model.pt", "model.pth", "model.ckpt", "model.pkl", "model")):
        (folder / name).write_bytes(pickle.dumps({"model": bomb}, protocol=protocol))
        yield folder / name
    for name in ("torch.safetensors", "torch.pt", "legacy.bin"):
        torch.save({"model": bomb}, folder / name, _use_new_zipfile_serialization=name != "legacy.bin")
        yield folder / name
    with zipfile.ZipFile(folder / "zip.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
    yield folder / "zip.safetensors"
    (folder / "npy.safetensors").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': "
                                             b"(1,), }".ljust(128) + pickle.dumps([bomb]))  # fmt: skip
    yield folder / "npy.safetensors"
    ig.save(folder / "inside", nn.Linear(1, 1), training={"blob": pickle.dumps(bomb)})
    damaged = (folder / "inside").read_bytes()
    (folder / "after.safetensors").write_bytes(damaged + pickle.dumps(bomb))
    yield folder / "after.safetensors"


def test_no_pickle_runs_under_any_name(tmp_path: Path) -> None:
    trace = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists(), "the bombs are live"
    trace.unlink()
    count = 0
    for file in bombs(tmp_path, trace):
        words = refused(file, small())
        assert file.name.startswith(("npy", "after")) or "never opened here, because it can run arbitrary code" in words
        count += 1
    blob = ig.load(tmp_path / "inside").training["blob"]
    assert isinstance(blob, bytes), "a pickle in the state stays bytes"
    assert not trace.exists()
    print(f"{count} pickle bombs refused, none ran")


def forged(path: Path, header: Any, tensors: dict[str, torch.Tensor] | None = None) -> None:
    """A file with a right SHA-256 over a header of one's own."""
    told = json.dumps(header)
    metadata = {"invgraph": f'{{"sha256":"{ZEROS.decode()}"' + (f",{told[1:]}" if told != "{}" else "}")}
    content = safetensors.torch.save(tensors or {}, metadata)
    start = content.index(_MARK) + len(_MARK)
    found = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content[:start] + found + content[start + 64 :])


GOOD = {"format": 1, "version": "9", "torch": "2", "architecture": {}, "metadata": {}, "extra": {"dict": []},
        "training": None}  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        {},
        *({key: value for key, value in GOOD.items() if key != lost} for lost in GOOD),
        {**GOOD, "architecture": [1, 2]},
        {**GOOD, "metadata": 3},
        {**GOOD, "extra": {"tensor": "model.x"}},
        {**GOOD, "extra": {"list": [1]}},
        {**GOOD, "training": {"tensor": "not there"}},
        {**GOOD, "training": {"pickle": "gASVAA=="}},
        {**GOOD, "training": {"dict": [1]}},
        {**GOOD, "training": {"dict": [[{"list": []}, 1]]}},
        {**GOOD, "training": {"bytes": "xyz"}},
        {**GOOD, "training": {"array": 1}},
        {**GOOD, "training": {}},
        {**GOOD, "training": {"list": 3}},
        {**GOOD, "training": {"complex": ["a", "b"]}},
        {**GOOD, "training": {"complex": [10**400, 0]}},
        {**GOOD, "training": {"Size": ["a"]}},
    ],
    ids=lambda header: str(header)[-40:],
)
def test_a_forged_header_is_refused(path: Path, header: Any) -> None:
    forged(path, header)
    assert "a header that was not written by save" in refused(path, small())


def test_a_deep_header_is_refused(path: Path) -> None:
    content = safetensors.torch.save({}, {"invgraph": '{"sha256":"' + "0" * 64 + '","a":' + "[" * 200_000})
    start = content.index(_MARK) + len(_MARK)
    path.write_bytes(content[:start] + hashlib.sha256(content).hexdigest().encode() + content[start + 64 :])
    assert "a header that was not written by save" in refused(path)


def test_a_later_format_says_upgrade(path: Path) -> None:
    forged(path, {**GOOD, "format": 2})
    assert "a file of format 2, written by invgraph 9\n" in refused(path)
    assert re.search(r"this is invgraph [\d.]+, which reads format 1: upgrade", refused(path))


def test_foreign_files_are_named(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    assert "a safetensors file without the header of invgraph" in refused(path)
    path.write_bytes(b"")
    assert "an empty file" in refused(path)
    path.write_bytes(b"hello, world: this is a text")
    assert "not a checkpoint, or damaged at its start" in refused(path)


# Disks


def test_a_missing_file_or_folder(tmp_path: Path) -> None:
    assert "there is no such file or folder: nothing was loaded" in refused(tmp_path / "no")
    with pytest.raises(ig.CheckpointError, match="there is no such file or folder: nothing was written"):
        ig.save(tmp_path / "no" / "model", small())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ig.CheckpointError, match="a parent in the path is a file, not a folder"):
        ig.save(tmp_path / "file" / "model", small())
    with pytest.raises(ig.CheckpointError, match="the name is too long"):
        ig.save(tmp_path / ("x" * 250), small())


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ig.CheckpointError, match="the path is a folder: nothing was written"):
        ig.save(tmp_path / "model", small())
    assert "the path is a folder: nothing was loaded" in refused(tmp_path / "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def kept(path: Path, words: str, graph: nn.Module | None = None) -> None:
    """A save that is refused with these words and leaves the old file, and nothing else."""
    before = path.read_bytes()
    files = sorted(path.parent.iterdir())
    with pytest.raises(ig.CheckpointError, match=words) as caught:
        ig.save(path, graph or make_flow())
    assert len(str(caught.value).splitlines()) == 3
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == files


def test_a_file_over_the_allowed_size(path: Path) -> None:
    ig.save(path, small())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        kept(
            path, "File too large\n  the file would exceed the maximum size: nothing was written, and an existing file"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ig.load(path, small())


FULL = """
import sys, invgraph as ig
from training import make_flow
path = sys.argv[1] + "/model"
flow = make_flow(hidden=64)
ig.save(path, flow)
try:
    for k in range(100):
        ig.save(f"{path}{k}", flow)
except ig.CheckpointError as error:
    print(error)
try:
    ig.save(path, flow, metadata={"new": 1})
except ig.CheckpointError as error:
    print(error)
import os
assert ig.load(path, flow).metadata == {}
print([name for name in os.listdir(sys.argv[1]) if name.startswith(".")])
"""


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A tmpfs of 512 KiB in a name space of its own."""
    command = f"mount -t tmpfs -o size=512k none {tmp_path} && exec {sys.executable} -c '{FULL}' {tmp_path}"
    allowed = shutil.which("unshare") and subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path],
                                                         capture_output=True, check=False).returncode == 0  # fmt: skip
    if not allowed:
        pytest.skip("the system mounts nothing for this user")
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{ROOT}"}
    run = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=environment,
                         check=True)  # fmt: skip
    assert run.stdout.count("No space left on device\n  the disk is full: nothing was written") == 2, run.stdout
    assert run.stdout.splitlines()[-1] == "[]", "no temporary file is left"


def test_a_feigned_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ig.save(path, small())

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    kept(path, "the disk is full: nothing was written")


def test_a_folder_that_cannot_be_written() -> None:
    """Run as a user without rights: root is let in everywhere."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ig.save(folder / "model", small())
        folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            kept(folder / "model", "Permission denied\n  no permission to do so: nothing was written")
            ig.load(folder / "model", small())
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)
        ig.save(folder / "model", small())


def test_a_read_only_file_system_has_its_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ig.save(path, small())

    def read_only(*_: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    kept(path, "the file system is read-only: nothing was written")


def test_an_interrupt_while_writing_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ig.save(path, small())
    before = path.read_bytes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ig.save(path, make_flow())
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_two_writers_at_once(path: Path) -> None:
    """Whoever reads sees the whole of one writer's file; nothing else is left behind."""
    flow = make_flow(hidden=32)
    seen: dict[int, int] = {}
    ended: list[processes.Ended] = []
    writers = threading.Thread(target=lambda: ended.extend(processes.run(write_often, [(path, 1), (path, 2)])))
    writers.start()
    while writers.is_alive():
        if path.exists():
            metadata = ig.load(path, flow).metadata
            numbers = {float(value) for parameter in flow.parameters() for value in parameter.detach().flatten()[:3]}
            assert numbers == {float(metadata["writer"])}
            seen[metadata["writer"]] = seen.get(metadata["writer"], 0) + 1
        else:
            time.sleep(0.01)
    writers.join()
    assert [one.code for one in ended] == [0, 0], ended
    assert list(path.parent.iterdir()) == [path]
    print(f"files read while two wrote: {seen}")
