"""Layers that stand in several nodes, and tensors of several names: what errors and checkpoints make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError
from invgraph.torch_internals import tensor_stores


def groups(layers: nn.ModuleDict) -> list[tuple[nn.Module, list[str]]]:
    """Return every layer once, with the names of the nodes that hold it."""
    found: dict[nn.Module, list[str]] = {}
    for name, layer in layers.items():
        found.setdefault(layer, []).append(name)
    return list(found.items())


def label_layers(layers: nn.ModuleDict) -> None:
    """Give the layers the names that errors call them by: ``node 'a' (Haar)``, or ``nodes 'a', 'b' (Haar)``."""
    for layer, names in groups(layers):
        if isinstance(layer, Invertible):
            nodes = ", ".join(map(repr, names))
            layer.label = f"node{'s' if len(names) > 1 else ''} {nodes} ({type(layer).__name__})"


def require_tied_state(where: str, layers: nn.ModuleDict, state: Mapping[str, Any], prefix: str) -> None:
    """Refuse a state that holds different tensors for nodes that share a layer, as one of them would be lost.

    Arguments:
        where: The graph, for errors.
        layers: Its layers.
        state: The state that is loaded.
        prefix: Text before the names of nodes in the state.
    """
    for _, names in groups(layers):
        first, *others = (f"{prefix}{name}." for name in names)
        for other in others:
            for name, value in state.items():
                twin = state.get(other + name.removeprefix(first)) if name.startswith(first) else None
                if isinstance(value, Tensor) and isinstance(twin, Tensor) and not hold_the_same(value, twin):
                    given = f"different tensors {name!r} and {other + name.removeprefix(first)!r}"
                    advice = (
                        f"nodes {', '.join(map(repr, names))} share one layer, but their weights in this state differ"
                    )
                    raise GraphError(where, given, advice)


@contextmanager
def kept_ties(graph: nn.Module) -> Iterator[None]:
    """Within the context, tensors may be replaced one by one; at its end, names that shared one share the new one."""
    held: dict[int, list[tuple[dict[str, Any], str, Tensor]]] = {}
    for store in tensor_stores(graph.modules()):
        for name, tensor in store.items():
            if tensor is not None:
                held.setdefault(id(tensor), []).append((store, name, tensor))
    try:
        yield
    finally:
        for places in held.values():
            # Of several names, those that a state lacks keep the old tensor.
            new = next((store[name] for store, name, old in places if store[name] is not old), None)
            for store, name, _ in places if new is not None else ():
                store[name] = new


def hold_the_same(one: Tensor, other: Tensor) -> bool:
    """True if two tensors have the same shape and values, of which NaN is one."""
    if one.is_meta or other.is_meta or one.shape != other.shape:
        return one.shape == other.shape
    one = one.to(other)
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
