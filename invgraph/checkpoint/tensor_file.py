"""The safetensors format, written tensor by tensor: no copy of the model is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from invgraph.errors import CheckpointError

# Names of dtypes, in the order in which the format's own library stores them: large numbers first, for alignment.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}
_LONGEST_HEADER = 100_000_000
"""Number of bytes beyond which the format's own library refuses to read a header."""


class TensorFile:
    """Content of a safetensors file, in pieces; a digest of all of it is found while they are written.

    Arguments:
        where: Function named in errors.
        tensors: The tensors by name.
        metadata: The text stored as ``invgraph``.

    Raises:
        CheckpointError: If a tensor has no data, or is not a dense tensor of real numbers; or if names and text are too
            long for the format.
    """

    def __init__(self, where: str, tensors: Mapping[str, Tensor], metadata: str) -> None:
        self.where, self.digest = where, hashlib.sha256()
        require_storable(where, tensors)
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0].encode())))
        header: dict[str, object] = {"__metadata__": {"invgraph": metadata}}
        end = 0
        for name, tensor in self.tensors.items():
            start, end = end, end + tensor.numel() * tensor.element_size()
            header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > _LONGEST_HEADER:
            given = f"a header of {len(text):,} bytes: metadata, architecture, training state without its tensors"
            advice = f"a file holds {_LONGEST_HEADER:,} at most: keep long text, bytes and lists as arrays or tensors"
            raise CheckpointError(where, given, advice)
        self.header = len(text).to_bytes(8, "little") + text

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the file; those of a tensor on the CPU are the tensor's own memory."""
        self.digest.update(self.header)
        yield self.header
        for name, tensor in self.tensors.items():
            try:
                flat = tensor.detach().to("cpu").contiguous().resolve_neg().reshape(-1)
                if flat.stride() != (1,):  # a single number of a wider tensor
                    flat = flat.clone(memory_format=torch.contiguous_format)
                piece = flat.view(torch.uint8).numpy().data
            except (RuntimeError, TypeError, NotImplementedError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                advice = "only dense, real tensors with data can be stored"
                raise CheckpointError(self.where, f"{name}: {reason}", advice) from error
            self.digest.update(piece)
            yield piece


def require_storable(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors without data, and those that are not dense or not of real numbers, by their names."""
    if wrong := [f"{name}: {t.dtype} {t.layout} on {t.device}" for name, t in tensors.items() if _is_refused(t)]:
        raise CheckpointError(where, ", ".join(wrong), "only dense, real tensors with data can be stored")


def _is_refused(tensor: Tensor) -> bool:
    return tensor.is_meta or tensor.layout is not torch.strided or tensor.dtype not in _NAMES
