"""Layers that stand in several nodes of a graph: their names in errors, and their weights in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError


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


def hold_the_same(one: Tensor, other: Tensor) -> bool:
    """True if two tensors have the same shape and values, of which NaN is one."""
    if one.is_meta or other.is_meta or one.shape != other.shape:
        return one.shape == other.shape
    one = one.to(other)
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
