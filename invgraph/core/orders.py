"""The order of a permutation and its inverse, which a layer holds as two buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def load_order(layer: nn.Module, state_dict: Mapping[str, Any], prefix: str, errors: list[str]) -> None:
    """Take the inverse from the order that was loaded, whatever was loaded as the inverse.

    Arguments:
        layer: Layer with the buffers ``order`` and ``inverse_order``, after loading.
        state_dict: What was loaded.
        prefix: Prefix of the layer's names.
        errors: List that an order that is not a permutation is added to.
    """
    name = f"{prefix}order"
    order: Tensor = layer.get_buffer("order")
    if name not in state_dict or order.is_meta:
        return
    inverse = order.argsort()
    if not torch.equal(order[inverse], torch.arange(len(order), dtype=order.dtype, device=order.device)):
        errors.append(f"{name}: {order.tolist()} is not a permutation of 0..{len(order) - 1}")
    elif not torch.equal(inverse, layer.get_buffer("inverse_order")):
        layer.register_buffer("inverse_order", inverse)
