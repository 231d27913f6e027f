"""Sums over the processes of a distributed run, for what is set from data and must be the same in all of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

Group = Any
"""A process group of ``torch.distributed``."""


class _Current(threading.local):
    group: Group | None = None


_current = _Current()


def find_group(given: Group | Literal[False] | None) -> Group | None:
    """Return the group to sum over: the one given, or the default one if there are several processes, or None."""
    if given is False or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    group = torch.distributed.group.WORLD if given is None else given
    return group if torch.distributed.get_world_size(group) > 1 else None


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """True if one of the tensors is distributed over processes, as parameters under FSDP2 are between calls."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and any(isinstance(tensor, distributed.DTensor) for tensor in tensors)


@contextmanager
def summed_over(group: Group | None) -> Iterator[None]:
    """Within the context, :func:`sum_over_processes` adds up the values of all processes of the group."""
    before, _current.group = _current.group, group
    try:
        yield
    finally:
        _current.group = before


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; the tensor itself unless :func:`summed_over` gave a group."""
    if _current.group is None:
        return x
    total = x.clone()
    torch.distributed.all_reduce(total, group=_current.group)
    return total


def broadcast(tensors: list[Tensor], group: Group | None) -> None:
    """Give tensors, in place, the values that they have in the first process of a group."""
    if group is None:
        return
    first = torch.distributed.get_global_rank(group, 0)
    for tensor in tensors:
        torch.distributed.broadcast(tensor, first, group=group)
