"""Arithmetic in place on what a layer has just returned, where nobody else can hold that tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.fused.switch import fused
from invgraph.torch_internals import is_eager, is_untouched

_FRESH: dict[type[nn.Module], Callable[..., Any]] = {nn.Linear: nn.Linear.forward}


def returns_fresh(kind: type[nn.Module]) -> type[nn.Module]:
    """Mark a class of layers, each call of which returns a tensor that nothing else refers to."""
    _FRESH[kind] = kind.forward
    return kind


def is_overwritable(layer: nn.Module) -> bool:
    """True if the layer's result may be overwritten: no hook, adapter or caller can see it."""
    forward = _FRESH.get(type(layer)) if is_eager() and fused.enabled else None
    return forward is not None and is_untouched(layer, forward)


def relu_after(layer: nn.Module, h: Tensor) -> Tensor:
    """Return the ReLU of a layer's result."""
    return torch.relu_(h) if is_overwritable(layer) else torch.relu(h)
