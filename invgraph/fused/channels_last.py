"""Small convolutional networks with the channels of a position next to each other in memory.

A CPU's convolutions work on such values directly; otherwise each of them rearranges what it reads and what it writes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invgraph.fused.switch import fused
from invgraph.torch_internals import PLAIN, has_global_hooks, has_hooks, is_jit_tracing, is_transformed

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity)


def prefers_channels_last(network: nn.Module, x: Tensor) -> bool:
    """True if the network is a sequence of convolutions and elementwise functions, far wider inside than at its ends.

    What goes in and comes out is rearranged once, which for wide ends takes longer than the convolutions; nothing but
    these layers, hooks included, sees the other layout.
    """
    if type(network) is not nn.Sequential or x.ndim != 4 or type(x) not in PLAIN:
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or not _may_rearrange():
        return False
    sizes: list[int] = []
    for layer in network:
        if has_hooks(layer) or "forward" in vars(layer):
            return False
        if type(layer) is nn.Conv2d:
            sizes += (layer.in_channels, layer.out_channels)
        elif type(layer) not in ELEMENTWISE or (not sizes and getattr(layer, "inplace", False)):
            return False  # one that overwrites what it is given would overwrite the copy
    return len(sizes) > 2 and sizes[0] + sizes[-1] <= max(sizes)


def _may_rearrange() -> bool:
    """True unless a program is recorded for elsewhere; ``torch.func`` can't map what chooses a layout."""
    if not fused.enabled or is_transformed() or has_global_hooks():
        return False
    return not (torch.compiler.is_exporting() or is_jit_tracing())
