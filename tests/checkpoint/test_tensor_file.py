"""Files are those of the format's own library, byte by byte, and no copy of the model is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

import invgraph as ig
from invgraph.checkpoint import tensor_file
from invgraph.checkpoint.tensor_file import _NAMES, TensorFile


def test_the_bytes_are_those_of_the_formats_own_library() -> None:
    tensors = {f"{place}-\u00e9": torch.ones(2, 3).to(dtype) for place, dtype in enumerate(_NAMES)}
    tensors.update({"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), 'a"\n': torch.zeros(3, dtype=torch.bool)})
    file = TensorFile("save", tensors, '{"a":"\\u00e9"}')
    content = b"".join(bytes(piece) for piece in file.pieces())
    assert content == save(tensors, {"invgraph": '{"a":"\\u00e9"}'})
    assert file.digest.digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("tensor", [torch.arange(4.0)[::2][:1], torch.tensor([1 + 2j]).imag, torch.arange(8.0)[::2]])
def test_parts_of_wider_tensors_are_stored(tensor: torch.Tensor) -> None:
    assert b"".join(TensorFile("save", {"a": tensor}, "").pieces()).endswith(tensor.numpy().tobytes())


def test_no_copy_is_made_of_what_lies_in_order() -> None:
    tensor, turned = torch.randn(100, 2), torch.randn(2, 50).t()
    _, piece, other = TensorFile("save", {"a": tensor, "b": turned}, "").pieces()
    assert np.frombuffer(piece, dtype=np.uint8).ctypes.data == tensor.data_ptr()
    assert bytes(other) == turned.contiguous().numpy().tobytes()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, device="meta"), "on meta"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.eye(2).to_sparse(), "sparse_coo"),
    ],
)
def test_what_cannot_be_stored_is_named(tensor: torch.Tensor, words: str) -> None:
    module = nn.Module()
    module.register_buffer("own", tensor)
    with pytest.raises(ig.CheckpointError, match=f"own: .*{words}"):
        ig.save("never.safetensors", module)


def test_a_header_that_the_format_cannot_hold_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own library refuses to read a header of more than 100 MB, and would take the last good checkpoint along."""
    assert tensor_file._LONGEST_HEADER == 100_000_000
    monkeypatch.setattr(tensor_file, "_LONGEST_HEADER", 10_000)
    path, module = tmp_path / "m.st", nn.Linear(2, 2)
    ig.save(path, module, training={"log": "good"})
    for training in ({"log": "x" * 20_000}, {"log": bytes(20_000)}):
        with pytest.raises(ig.CheckpointError, match=r"a header of 2\d,\d+ bytes|a header of 4\d,\d+ bytes"):
            ig.save(path, module, training=training)
    assert ig.load(path, module).training == {"log": "good"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.st"]
    ig.save(path, module, training={"log": np.zeros(20_000, dtype=np.uint8)})
    assert ig.load(path, module).training["log"].shape == (20_000,)
