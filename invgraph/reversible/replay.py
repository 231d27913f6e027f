"""Running a forward pass again: under the same autocast, with the statistics left alone, and no random numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from invgraph.graph.graph import Graph


class Autocast(NamedTuple):
    """The autocast settings of the forward call, for the backward pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device: str) -> Autocast:
        if not torch.amp.is_autocast_available(device):
            return cls("cpu", False, torch.bfloat16)
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def again(self) -> torch.autocast:
        # Without the cache: it would hand weights that were cast without gradient to the run with gradient.
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


def random_states(reference: Tensor) -> tuple[Tensor, ...]:
    """The states of the global generators that a node may draw from."""
    states = [torch.get_rng_state()]
    if reference.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(reference.device))
    return tuple(states)


class FrozenStatistics:
    """Batch norm's running statistics were updated by the forward call; running again leaves them alone."""

    def __init__(self, graph: Graph) -> None:
        self.norms = [m for m in graph.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for norm in self.norms:
            norm.track_running_stats = True
