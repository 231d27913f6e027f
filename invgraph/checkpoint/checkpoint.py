"""Checkpoints as safetensors files, with a fingerprint of the graph and a SHA-256 of the whole file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag
from invgraph.checkpoint.atomic_file import as_path, read, write
from invgraph.checkpoint.fingerprint import Fingerprint, fingerprint, upgrade
from invgraph.checkpoint.loading import align, fitting_part, load_state, require_same
from invgraph.checkpoint.state import decode, encode
from invgraph.checkpoint.tensor_file import TensorFile
from invgraph.errors import ArgumentError, CheckpointError

_FORMAT = 1
_NO_DIGEST = "0" * 64
# Start of the header: safetensors stores metadata as strings, so ours is JSON inside JSON.
_MARK = b'{"__metadata__":{"invgraph":"{\\"sha256\\":\\"'
_MODEL, _EXTRA, _TRAINING = "model.", "extra.", "training."


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint apart from the tensors of the graph.

    Attributes:
        metadata: Metadata passed to ``save``.
        training: Training state passed to ``save``, or None.
        architecture: Fingerprint of the graph: a line for each module, by its path.
        version: Version of invgraph that wrote the file.
        torch_version: Version of torch that wrote the file.
        skipped: Differences of the tensors that ``load(..., strict=False)`` left out: ``-`` for one that only the file
            has, ``+`` for one that only the graph has, which keeps its value, and both for one of another shape.
    """

    metadata: dict[str, Any]
    training: Any
    architecture: Fingerprint = field(repr=False)  # it is long
    version: str
    torch_version: str
    skipped: tuple[str, ...] = ()


def save(
    path: str | PathLike[str], graph: nn.Module, *, training: Any = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Save the parameters and buffers of a graph, and optionally training state, to a file.

    The file is written under a temporary name, synced to disk and renamed, so at any time either the old or the new
    file is complete. It is an ordinary safetensors file; equal content gives equal bytes. With DDP, call
    this on one rank.

    Arguments:
        path: Path of the file.
        graph: Graph, flow, or module that contains one.
        training: State from which to resume: numbers, strings, tensors and numpy arrays in lists, tuples and dicts of
            any depth, such as ``{"optimizer": optimizer.state_dict(), "epoch": 3, "rng": ig.rng_state()}``. Default:
            None.
        metadata: Information for readers, such as names, settings and results, that JSON can represent. Default: empty.

    Raises:
        CheckpointError: If the file can't be written (an old one is unchanged), or a value can't be stored.
        ArgumentError: If an argument has the wrong type.

    Example:
        >>> import tempfile, torch, invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> graph = ig.Graph(x, ig.Node(x, ig.Orthogonal, {"seed": 1}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ig.save(f"{folder}/model.safetensors", graph, metadata={"seed": 1})
        ...     ig.load(f"{folder}/model.safetensors", graph).metadata
        {'seed': 1}
    """
    where = _call("save", path)
    target = as_path(where, path)
    _require_module(where, graph)
    tensors: dict[str, Tensor] = {}
    header = _header(graph, tensors, training, _as_json(where, metadata))
    file = TensorFile(where, tensors, _as_text(where, header))
    # The digest is that of the file with zeros in place of the digest.
    start = file.header.index(_MARK) + len(_MARK)
    write(where, target, file.pieces(), seal=lambda: (start, file.digest.hexdigest().encode()))


def load(path: str | PathLike[str], graph: nn.Module | None = None, *, strict: bool = True) -> Checkpoint:
    """Load a file that :func:`save` wrote: either all of its tensors or none.

    The SHA-256 of the file is verified before anything is used, and nothing is ever unpickled.

    Arguments:
        path: Path of the file.
        graph: Graph built like the saved one. If None (default), the file is only read, for example to find in its
            metadata what to build.
        strict: If True (default), layers, their arguments and wiring must equal those of the saved graph. If False,
            those tensors are loaded whose names, shapes and dtypes agree, at least one; the others are listed in
            ``skipped`` of the result. A flow's checkpoint fits its graph, and the other way round; what only runs a
            graph, ``reversible``, ``torch.compile`` or DDP, makes no difference.

    Returns:
        Metadata, training state, and versions that wrote the file.

    Raises:
        CheckpointError: If the file does not exist, is damaged, or belongs to another graph, in which case the message
            lists the differences. The graph is unchanged.
        ArgumentError: If an argument has the wrong type.
    """
    where = _call("load", path)
    source = as_path(where, path)
    strict = require_flag(where, "strict", strict)
    if graph is not None:
        _require_module(where, graph)
    header, tensors = _verify(where, read(where, source))
    try:
        state = {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
        extra = dict(decode(header["extra"], tensors))
        architecture = {str(name): str(line) for name, line in dict(header["architecture"]).items()}
        architecture, state, extra = upgrade(architecture, state, extra)
        checkpoint = Checkpoint(
            dict(header["metadata"]),
            decode(header["training"], tensors),
            architecture,
            str(header["version"]),
            str(header["torch"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(where, "a header that was not written by save", "save the file again") from error
    if graph is None:
        return checkpoint
    target, architecture, state, extra = align(graph, architecture, state, extra)
    skipped: list[str] = []
    if strict:
        require_same(where, architecture, state, target)
    else:
        state, extra, skipped = fitting_part(where, state, extra, target)
    load_state(where, target, {**state, **extra}, strict=strict)
    return replace(checkpoint, skipped=tuple(skipped))


def _call(name: str, path: object) -> str:
    """Return a call as errors show it, with its path, which must be one."""
    if not isinstance(path, (str, PathLike)):
        advice = f"a path must be a str or a pathlib.Path, and comes first: {name}(path, graph)"
        raise ArgumentError(name, f"path: {type(path).__name__}", advice)
    return f"{name}({str(path)!r})"


def _require_module(where: str, graph: object) -> None:
    if not isinstance(graph, nn.Module):
        raise ArgumentError(where, type(graph).__name__, "expected a Graph, a Flow, or a module that holds one")


def _version() -> str:
    from invgraph import __version__  # imported here, because the package imports this file

    return __version__


def _header(graph: nn.Module, tensors: dict[str, Tensor], training: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return everything in a file but the tensors, which are added to ``tensors``."""
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


def _as_json(where: str, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Convert metadata to JSON and back, so that they are loaded exactly as checked here."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ArgumentError(where, f"metadata: {type(metadata).__name__}", "metadata must be a mapping")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(metadata or {}), sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        advice = "metadata must be JSON: strings, numbers, lists, dicts with string keys"
        raise CheckpointError(where, f"metadata: {error}", advice) from error
    return plain


def _as_text(where: str, header: Mapping[str, Any]) -> str:
    """Return the header as JSON that begins with zeros as digest."""
    try:
        text = json.dumps(header, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:  # an int with more digits than Python prints
        raise CheckpointError(where, f"training: {error}", "an int has too many digits to be stored") from error
    return f'{{"sha256":"{_NO_DIGEST}",{text[1:]}'


def _verify(where: str, content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Verify the digest of a file; return its header and tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    start = 8 + len(_MARK)
    if content[8:start] != _MARK:
        raise CheckpointError(where, _guess(content), "nothing was loaded: save checkpoints with invgraph.save")
    digest, rest = content[start : start + len(_NO_DIGEST)], memoryview(content)[start + len(_NO_DIGEST) :]
    found = hashlib.sha256(content[:start])
    found.update(_NO_DIGEST.encode())
    found.update(rest)
    if found.hexdigest().encode() != digest:
        given = f"{len(content)} bytes whose SHA-256 does not match the one in the file"
        raise CheckpointError(
            where, given, "nothing was loaded, because the file is damaged or truncated: use an earlier checkpoint"
        )
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["invgraph"])
        if header["format"] != _FORMAT:
            given = f"a file of format {header['format']}, written by invgraph {header['version']}"
            raise CheckpointError(where, given, f"this is invgraph {_version()}, which reads format {_FORMAT}: upgrade")
        return header, from_bytes(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, SafetensorError) as error:
        raise CheckpointError(where, "a header that was not written by save", "save the file again") from error


def _guess(content: bytes) -> str:
    """Describe a file that is not a checkpoint of this library."""
    if not content:
        return "an empty file"
    if content.startswith((b"PK", b"\x80")) or content[:1] in b"(ci}]":
        return "a pickle, as written by torch.save: never opened here, because it can run arbitrary code"
    if content[8:9] == b"{":
        return "a safetensors file without the header of invgraph, or a damaged one"
    return "not a checkpoint, or damaged at its start"
