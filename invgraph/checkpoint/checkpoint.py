"""Checkpoints that are whole or refused: safetensors, a fingerprint of the graph, a SHA-256 over everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag
from invgraph.checkpoint.atomic_file import as_path, read, write
from invgraph.checkpoint.fingerprint import Fingerprint, differences, fingerprint, listed, tensor_lines
from invgraph.checkpoint.state import decode, encode
from invgraph.errors import ArgumentError, CheckpointError

_FORMAT = 1
_NO_DIGEST = "0" * 64
# How the header of the file starts: safetensors writes its metadata as a string, so ours is JSON inside JSON.
_MARK = b'{"__metadata__":{"invgraph":"{\\"sha256\\":\\"'
_MODEL, _EXTRA, _TRAINING = "model.", "extra.", "training."


@dataclass(frozen=True)
class Checkpoint:
    """What a file held beside the tensors of the graph.

    Attributes:
        metadata: what was given to ``save``.
        training: what was given to ``save``; None if nothing was.
        architecture: the fingerprint: a line for each module, by its path.
        version: of the invgraph that wrote it.
        torch_version: of the torch that wrote it.
    """

    metadata: dict[str, Any]
    training: Any
    architecture: Fingerprint
    version: str
    torch_version: str


def save(
    path: str | PathLike[str], graph: nn.Module, *, training: Any = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a graph's parameters and buffers, and what else a run needs to go on, to a file.

    The file is written beside its place, synced to the disk and renamed: whatever happens, the old file or the new one
    is there, whole. It is an ordinary safetensors file, the same bytes for the same content. Under DDP, call it on one
    rank with the graph itself (``ddp.module``).

    Arguments:
        path: of the file.
        graph: a graph, a flow, or a module that holds one.
        training: state to resume from: numbers, strings, tensors, numpy arrays, in lists, tuples and dicts of any
            depth, such as ``{"optimizer": optimizer.state_dict(), "epoch": 3, "rng": ig.rng_state()}``.
        metadata: what a reader should know, as JSON can say it: names, settings, results.

    Raises:
        CheckpointError: the file can't be written (the old one is as it was), or something in it can't be stored.
        ArgumentError: an argument has the wrong type.

    Example:
        >>> import tempfile, torch, invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> graph = ig.Graph(x, ig.Node(x, ig.Orthogonal, {"seed": 1}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ig.save(f"{folder}/model.safetensors", graph, metadata={"seed": 1})
        ...     ig.load(f"{folder}/model.safetensors", graph).metadata
        {'seed': 1}
    """
    where = f"save({str(path)!r})"
    target = as_path(where, path)
    _require_module(where, graph)
    tensors: dict[str, Tensor] = {}
    header = _header(graph, tensors, training, _plain(where, metadata))
    content = _serialized(where, tensors, header)
    # The digest is of the file with zeros in its own place.
    start = content.index(_MARK) + len(_MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    view = memoryview(content)
    write(where, target, (view[:start], digest, view[start + len(digest) :]))


def load(path: str | PathLike[str], graph: nn.Module | None = None, *, strict: bool = True) -> Checkpoint:
    """Read a file that :func:`save` wrote, and put its tensors into a graph, all or none.

    Every byte is checked against the file's SHA-256 before anything is used; nothing is ever unpickled.

    Arguments:
        path: of the file.
        graph: built as the saved one was. None: only read, e.g. to learn from ``metadata`` what to build.
        strict: refuse a graph whose layers, their arguments or wiring differ from the saved one's. False: its tensors
            alone must agree, by name, shape and dtype.

    Returns:
        The metadata, the training state, and where the file comes from.

    Raises:
        CheckpointError: there is no such file, it is damaged, or another graph's: the message lists the differences;
            the graph is as it was.
        ArgumentError: an argument has the wrong type.
    """
    where = f"load({str(path)!r})"
    source = as_path(where, path)
    strict = require_flag(where, "strict", strict)
    if graph is not None:
        _require_module(where, graph)
    header, tensors = _verified(where, read(where, source))
    try:
        state = {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
        extra = dict(decode(header["extra"], tensors))
        checkpoint = Checkpoint(
            dict(header["metadata"]),
            decode(header["training"], tensors),
            {str(name): str(line) for name, line in dict(header["architecture"]).items()},
            str(header["version"]),
            str(header["torch"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(where, "a header that save did not write", "make the file again with save") from error
    if graph is not None:
        _require_same(where, checkpoint.architecture, state, graph, strict)
        _put(where, graph, {**state, **extra})
    return checkpoint


def _require_module(where: str, graph: object) -> None:
    if not isinstance(graph, nn.Module):
        raise ArgumentError(where, type(graph).__name__, "expected a Graph, a Flow, or a module that holds one")


def _version() -> str:
    from invgraph import __version__  # here, because the package imports this file

    return __version__


def _header(graph: nn.Module, tensors: dict[str, Tensor], training: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """All that a file tells, but for the tensors, which go to ``tensors``."""
    state = graph.state_dict()
    tensors.update((_MODEL + name, value) for name, value in state.items() if isinstance(value, Tensor))
    others = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    return {
        "format": _FORMAT,
        "version": _version(),
        "torch": torch.__version__,
        "architecture": fingerprint(graph),
        "metadata": metadata,
        "extra": encode(others, tensors, _EXTRA, "the graph's extra state"),
        "training": encode(training, tensors, _TRAINING, "training"),
    }


def _plain(where: str, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata as JSON will give them back, so that what is loaded is what was checked here."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ArgumentError(where, f"metadata: {type(metadata).__name__}", "metadata must be a mapping")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(metadata or {}), sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        advice = "metadata must be what JSON can say: strings, numbers, lists, dicts with strings as keys"
        raise CheckpointError(where, f"metadata: {error}", advice) from error
    return plain


def _serialized(where: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """A safetensors file with the header as its metadata, and zeros for the digest."""
    from safetensors.torch import save as to_bytes  # here, so that it costs nothing at import

    try:
        told = json.dumps(header, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:  # an int of more digits than Python prints
        raise CheckpointError(where, f"training: {error}", "what is stored beside tensors must be printable") from error
    try:
        whole = {name: _own(tensor) for name, tensor in tensors.items()}
        return to_bytes(whole, {"invgraph": f'{{"sha256":"{_NO_DIGEST}",{told[1:]}'})
    except (KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        names = ", ".join(f"{name}: {value.dtype} {value.layout} on {value.device}" for name, value in tensors.items()
                          if value.is_meta or value.layout is not torch.strided or value.is_complex())  # fmt: skip
        given = names or (str(error).splitlines() or ["a tensor"])[0]
        raise CheckpointError(where, given, "only dense tensors with data of real numbers can be stored") from error


def _own(tensor: Tensor) -> Tensor:
    """The tensor's numbers in memory of their own, as safetensors wants them: tied parameters are stored twice."""
    if tensor.is_meta:
        raise ValueError("a tensor without data")
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _verified(where: str, content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file whose every byte is as it was written."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    start = 8 + len(_MARK)
    if content[8:start] != _MARK:
        raise CheckpointError(where, _guess(content), "nothing was loaded; make checkpoints with invgraph.save")
    digest, rest = content[start : start + len(_NO_DIGEST)], memoryview(content)[start + len(_NO_DIGEST) :]
    found = hashlib.sha256(content[:start])
    found.update(_NO_DIGEST.encode())
    found.update(rest)
    if found.hexdigest().encode() != digest:
        given = f"{len(content)} bytes whose SHA-256 is not the one written with them"
        raise CheckpointError(where, given, "the file is damaged or cut short: nothing was loaded; take an earlier one")
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["invgraph"])
        if header["format"] != _FORMAT:
            given = f"a file of format {header['format']}, written by invgraph {header['version']}"
            raise CheckpointError(where, given, f"this is invgraph {_version()}, which reads format {_FORMAT}: upgrade")
        return header, from_bytes(content)
    except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(where, "a header that save did not write", "make the file again with save") from error


def _guess(content: bytes) -> str:
    """What a file that is no checkpoint of ours seems to be."""
    if not content:
        return "an empty file"
    if content.startswith((b"PK", b"\x80")) or content[:1] in b"(ci}]":
        return "a pickle, as torch.save writes it: never opened here, because it could run anything"
    if content[8:9] == b"{":
        return "a safetensors file without invgraph's header, or a damaged one"
    return "not a checkpoint, or its start is damaged"


def _require_same(
    where: str, architecture: Fingerprint, state: Mapping[str, Tensor], graph: nn.Module, strict: bool
) -> None:
    """Refuse a graph that is not the saved one, telling each difference."""
    layers = differences(architecture, fingerprint(graph)) if strict else []
    tensors = differences(tensor_lines(state), tensor_lines(graph.state_dict()))
    advice = "build the graph as it was saved (-: in the file, +: here)"
    if layers and not tensors:
        advice = f"{advice}, or give strict=False: the tensors agree"
    if layers or tensors:
        raise CheckpointError(where, "a checkpoint of another graph", f"{advice}:{listed(layers or tensors)}")


def _put(where: str, graph: nn.Module, state: dict[str, Any]) -> None:
    """Load the state, or put back what was there."""
    before = {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        for name, value in graph.state_dict().items()
    }
    try:
        graph.load_state_dict(state)
    except Exception as error:  # whatever a user's own layer raises, the graph must not stay half loaded
        graph.load_state_dict(before)
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(where, told, "a layer refused its state: nothing was loaded") from error
