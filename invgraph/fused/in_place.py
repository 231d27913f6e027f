"""Arithmetic in place on what a layer has just returned, where nobody else can hold that tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invgraph.fused.dispatch import are_exactly, is_eager

_FRESH: set[type[nn.Module]] = {nn.Linear}


def returns_fresh(kind: type[nn.Module]) -> type[nn.Module]:
    """Mark a class of layers, each call of which returns a tensor that nothing else refers to."""
    _FRESH.add(kind)
    return kind


def is_overwritable(layer: nn.Module) -> bool:
    """True if the layer's result may be overwritten: no hook, adapter or caller can see it."""
    return type(layer) in _FRESH and is_eager() and are_exactly(type(layer), (layer,))


def relu_after(layer: nn.Module, h: Tensor) -> Tensor:
    """Return the ReLU of a layer's result."""
    return torch.relu_(h) if is_overwritable(layer) else torch.relu(h)
