"""Conversion of nested state, such as that of an optimizer, to JSON and tensors, and back."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from invgraph.checkpoint.tensor_file import require_storable
from invgraph.errors import CheckpointError

Json: TypeAlias = Any
"""Value that ``json.dumps`` accepts."""

_DICTS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


_MAX_DEPTH = 100


def encode(value: object, tensors: dict[str, Tensor], prefix: str, place: str, depth: int = 0) -> Json:
    """Convert a value to JSON; its tensors are added to ``tensors``, with names that start with ``prefix``.

    Numbers, strings, None, bytes, tensors, numpy arrays and scalars, and lists, tuples and dicts of them can be
    converted, and :func:`decode` restores them exactly.

    Arguments:
        value: Nested state.
        tensors: Dict that receives the tensors.
        prefix: Prefix of their names.
        place: Location of the value in error messages, such as ``training``.
        depth: Nesting depth of the value. Default: 0.

    Raises:
        CheckpointError: If a value has another type, or contains itself.
    """
    if depth > _MAX_DEPTH:
        given = f"{place[:80]}...: nested more than {_MAX_DEPTH} deep"
        raise CheckpointError("save", given, "can't be stored: does it contain itself?")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        kind = "tensor" if isinstance(value, Tensor) else "array" if isinstance(value, np.ndarray) else "number"
        name = f"{prefix}{len(tensors)}"
        tensors[name] = value if isinstance(value, Tensor) else _from_numpy(np.asarray(value), place)
        require_storable("save", {place: tensors[name]})
        return {kind: name}
    _require_plain(value, place)
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "Size" if isinstance(value, torch.Size) else "tuple"
        return {kind: [encode(part, tensors, prefix, f"{place}[{at}]", depth + 1) for at, part in enumerate(value)]}
    if isinstance(value, Mapping):
        kind = type(value).__name__ if type(value).__name__ in _DICTS else "dict"
        pairs = []
        for key, part in value.items():
            name = encode(key, tensors, prefix, f"{place}: a key", depth + 1)
            pairs.append([name, encode(part, tensors, prefix, f"{place}[{key!r}]", depth + 1)])
        return {kind: pairs}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    given = f"{place}: a {type(value).__name__}"
    advice = "can't be stored: use numbers, strings, tensors, in lists, tuples, dicts; for an object, its state_dict()"
    raise CheckpointError("save", given, advice)


def _require_plain(value: object, place: str) -> None:
    """Refuse a subclass of a tuple, list or dict: it would come back as the class that it derives from."""
    known = (list, tuple, torch.Size, *_DICTS.values())
    for base in (list, tuple, dict):
        if isinstance(value, base) and type(value) not in known:
            name = base.__name__
            advice = f"it would be loaded as a {name}: store {name}(...) of it"
            raise CheckpointError("save", f"{place}: a {type(value).__name__}", advice)


def decode(value: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Restore the value that :func:`encode` converted.

    Raises:
        KeyError, TypeError, ValueError: If the JSON was not written by :func:`encode`.
    """
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "number":
        return tensors[content].numpy()[()]
    if kind == "list":
        return [decode(entry, tensors) for entry in content]
    if kind == "tuple":
        return tuple(decode(entry, tensors) for entry in content)
    if kind == "Size":
        return torch.Size(decode(entry, tensors) for entry in content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "bytearray":
        return bytearray.fromhex(content)
    if kind == "complex":
        return complex(*content)
    made = _DICTS[kind]()
    for key, entry in content:
        made[decode(key, tensors)] = decode(entry, tensors)
    return made


def _from_numpy(array: np.ndarray[Any, Any], place: str) -> Tensor:
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except (TypeError, ValueError) as error:  # ValueError: in another order of bytes
        given = f"{place}: a numpy array of {array.dtype.str}"
        raise CheckpointError("save", given, "can't be stored: convert it to a dtype that torch supports") from error
