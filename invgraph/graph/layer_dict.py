"""The layers of a graph by the names of their nodes, in the order of the schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from invgraph.errors import GraphError


class ModuleDict(nn.ModuleDict):
    """Layers that can be replaced but not removed, nor added to: the steps of a graph count on their places.

    It has the name of its base class because that stands in the fingerprints of checkpoints.

    Arguments:
        modules: The layers by name.
    """

    _is_complete = False

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(modules)
        self._is_complete = True

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Put a module in its place, which may be that of another one."""
        self._require_known(name)
        self._require_fit(name, module)
        super().add_module(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "__dict__":  # which a data-parallel replica sets first, when it has nothing yet
            if isinstance(value, nn.Module):
                self._require_known(name)
            self._require_fit(name, value)  # here come wrappers for checkpointing and sharding, and set_submodule
        super().__setattr__(name, value)

    def _require_known(self, name: str) -> None:
        """Refuse a name that no node has: no step of the graph would ever run the layer."""
        if self._is_complete and name not in self:
            given = f"a layer for node {name!r}"
            raise GraphError("graph.layers", given, f"no such node; the graph has {', '.join(self)}")

    def _require_fit(self, name: str, module: object) -> None:
        """Refuse what can't stand in the place of a layer; a wrapper that passes the layer's attributes on can."""
        before = self[name] if name in self else None  # noqa: SIM401  # a ModuleDict has no get
        if before is None:
            return
        had, has = _shapes(before), _shapes(module)
        if not isinstance(module, nn.Module) or (has is None and had is not None):
            advice = "a layer is replaced by an Invertible; init.identity(layer) makes one that does nothing"
            raise GraphError(f"node {name!r}", f"a {type(module).__name__} in place of a layer", advice)
        if had is not None and had != has:
            given = f"a layer {_described(has)} in place of {_described(had)}"
            raise GraphError(f"node {name!r}", given, "the shapes must stay the same")

    def __delitem__(self, key: str) -> None:
        raise _refusal(key)

    def __delattr__(self, name: str) -> None:
        if name in self:
            raise _refusal(name)
        super().__delattr__(name)

    def pop(self, key: str) -> nn.Module:
        """Refuse to remove a layer."""
        raise _refusal(key)

    def clear(self) -> None:
        """Refuse to remove all layers."""
        raise _refusal("layers")


def _shapes(module: object) -> tuple[Any, ...] | None:
    """Return the shapes of a layer, or of the layer in a wrapper; None for a network, which declares none."""
    found = tuple(getattr(module, side, None) for side in ("in_shapes", "out_shapes", "cond_shapes"))
    return None if None in found else found


def _described(shapes: Any) -> str:
    return f"{shapes[0]} -> {shapes[1]} under {shapes[2]}"


def _refusal(name: str) -> GraphError:
    advice = "a graph needs the layers of all of its nodes: put another in its place, graph.layers[name] = layer"
    return GraphError(f"node {name!r}", "a layer to be removed", advice)
