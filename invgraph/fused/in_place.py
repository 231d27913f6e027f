"""Arithmetic in place on what a layer has just returned, where nobody else can hold that tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invgraph.fused.dispatch import is_eager
from invgraph.torch_internals import has_global_hooks, has_hooks

_FRESH: dict[type[nn.Module], object] = {nn.Linear: nn.Linear.forward}


def returns_fresh(kind: type[nn.Module]) -> type[nn.Module]:
    """Mark a class of layers, each call of which returns a tensor that nothing else refers to."""
    _FRESH[kind] = kind.forward
    return kind


def is_overwritable(layer: nn.Module) -> bool:
    """True if the layer's result may be overwritten: no hook, adapter or caller can see it."""
    kind = type(layer)
    if kind not in _FRESH or not is_eager() or has_hooks(layer) or has_global_hooks():
        return False
    return kind.forward is _FRESH[kind] and "forward" not in layer.__dict__


def relu_after(layer: nn.Module, h: Tensor) -> Tensor:
    """Return the ReLU of a layer's result."""
    return torch.relu_(h) if is_overwritable(layer) else torch.relu(h)
