"""The layers of a graph by the names of their nodes, in the order of the schedules."""

from __future__ import annotations

from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError


class ModuleDict(nn.ModuleDict):
    """Layers that can be replaced but not removed: the steps of a graph count on their places.

    It has the name of its base class because that stands in the fingerprints of checkpoints.
    """

    def __setitem__(self, key: str, module: nn.Module) -> None:
        before = self[key] if key in self else None  # noqa: SIM401  # a ModuleDict has no get
        if isinstance(before, Invertible) and isinstance(module, Invertible):
            had, has = ((layer.in_shapes, layer.out_shapes, layer.cond_shapes) for layer in (before, module))
            if had != has:
                old, new = (f"{xs} -> {ys} under {cs}" for xs, ys, cs in (had, has))
                raise GraphError(f"node {key!r}", f"a layer {new} in place of {old}", "the shapes must stay the same")
        super().__setitem__(key, module)

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


def _refusal(name: str) -> GraphError:
    advice = "a graph needs the layers of all of its nodes: put another in its place, graph.layers[name] = layer"
    return GraphError(f"node {name!r}", "a layer to be removed", advice)
