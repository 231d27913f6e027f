"""The same layer for data of other spatial sizes."""

from __future__ import annotations

import copy
from typing import TypeVar

from invgraph.core.invertible import Invertible
from invgraph.shapes import Shape

L = TypeVar("L", bound=Invertible)


def resized(layer: L, in_shapes: tuple[Shape, ...], cond_shapes: tuple[Shape, ...]) -> L:
    """Return a layer with the same parameters for inputs and conditions of other shapes; itself if they are the same.

    The copy is shallow: parameters, buffers, subnets and hooks are those of the original, also after either of the two
    is trained, loaded, cast or moved.

    Raises:
        GraphError: If the layer has a fixed size; the message says why.
    """
    if (in_shapes, cond_shapes) == (layer.in_shapes, layer.cond_shapes):
        return layer
    other = copy.copy(layer)
    # Not by setattr, which would make the original a part of the copy.
    other.__dict__["_resized_from"] = layer._resized_from or layer
    other.in_shapes, other.cond_shapes = in_shapes, cond_shapes
    other._resize(layer.in_shapes)
    return other
