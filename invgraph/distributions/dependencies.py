"""Everything that the results of a model depend on: its modules, also hidden ones, their tensors and settings."""

from __future__ import annotations

import functools
import weakref
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invgraph.shapes import Tensors
from invgraph.torch_internals import hook_stores, tensor_stores, version

_KEPT_BY_TORCH = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of every module: tensors, modules and hooks, which are looked at by themselves."""

_PLAIN = (
    {bool, int, float, complex, str, bytes, range, slice, NoneType}
    | {FunctionType, MethodType, BuiltinFunctionType, ModuleType}
    | {torch.dtype, torch.device}
)

_FIXED = object()


class Dependencies:
    """Modules, tensors and settings of a model as they are now, to be compared later.

    Arguments:
        model: The model. Modules, tensors and arrays in its attributes belong to it: a frozen network that is to be
            kept out of the ``state_dict``, for example, is often held in a list.

    Attributes:
        tensors: All tensors.
        state: Modules, what their ``forward`` is, their settings, and hooks. Two states are never equal if a module has
            a setting that can't be compared, such as an object of another library.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parts: list[nn.Module] = []
        self._seen: set[int] = set()
        self._loose: list[Tensor] = []
        self._add(model)
        calls = [(part, type(part).forward, self._settings(part)) for part in self._parts]  # it grows on the way
        held = [tensor for store in tensor_stores(self._parts) for tensor in store.values() if tensor is not None]
        self.tensors: Tensors = (*held, *self._loose)
        hooks = [tuple(hooks) for stores in hook_stores(model) for hooks in stores if hooks]
        self.state: tuple[object, ...] = (calls, hooks)

    def _add(self, module: nn.Module) -> None:
        new = [part for part in module.modules() if id(part) not in self._seen]
        self._seen.update(map(id, new))
        self._parts += new

    def _settings(self, module: nn.Module) -> list[object]:
        found = [(name, self._read(value)) for name, value in vars(module).items() if name not in _KEPT_BY_TORCH]
        return [pair for pair in found if pair[1] is not _FIXED]

    def _read(self, value: object) -> object:
        """Return something that equals what is read later exactly if the value has not changed."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, Tensor):
            self._loose.append(value)
            return None  # it is among the tensors
        if isinstance(value, nn.Module):
            self._add(value)
            return None  # it is among the parts
        if isinstance(value, np.ndarray) and value.dtype != object:
            return value.shape, value.dtype.str, value.tobytes()
        if isinstance(value, functools.partial):
            return self._read((value.func, value.args, value.keywords))
        if isinstance(value, (type, weakref.ref)):
            return id(value)
        if isinstance(value, torch.Generator):
            return object()  # noise of its own, new at each call
        parts = _parts_of(value)
        if parts is None:
            return object()
        if parts is _FIXED:
            return _FIXED
        if id(value) in self._seen:  # it contains itself, or several modules share it
            return id(value)
        self._seen.add(id(value))
        return kind, [self._read(part) for part in parts]


def _parts_of(value: object) -> Any:
    """Return what a value consists of; None if that is not known, and ``_FIXED`` if it does not change."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (tuple, list, set, frozenset)):
        return list(value)
    if type(value).__module__.partition(".")[0] in ("torch", "invgraph"):
        return _FIXED  # transforms, schedules, what a layer prepares in its first call
    if isinstance(value, SimpleNamespace) or is_dataclass(value):
        named = [field.name for field in fields(value)] if is_dataclass(value) else []  # which may be slots
        return [*getattr(value, "__dict__", {}).items(), *[(name, getattr(value, name, None)) for name in named]]
    return None


def counts(tensors: Tensors) -> list[tuple[int, int, int]]:
    """Return, for each tensor, which one it is, where its values lie, and how often they were changed in place."""
    return [(id(t), t.data_ptr(), -1 if t.is_inference() else version(t)) for t in tensors]
