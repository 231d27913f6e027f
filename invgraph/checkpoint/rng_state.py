"""Get and set the states of the global random generators, for runs that resume bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from invgraph.errors import ArgumentError, CheckpointError

_NAMES = ("torch", "numpy", "python")


def rng_state() -> dict[str, Any]:
    """Return the states of the global generators of torch (CPU and every CUDA device), numpy and Python.

    Pass it to :func:`~invgraph.save` as part of ``training``, and pass what ``load`` returns to :func:`set_rng_state`.
    To store a private ``torch.Generator``, use ``generator.get_state()``.

    Example:
        >>> import torch, invgraph as ig
        >>> state = ig.rng_state()
        >>> a = torch.rand(3)
        >>> ig.set_rng_state(state)
        >>> bool((torch.rand(3) == a).all())
        True
    """
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the states of the global generators; states of CUDA devices that do not exist here are ignored.

    Arguments:
        state: States returned by :func:`rng_state`.

    Raises:
        ArgumentError: If the state is not a mapping.
        CheckpointError: If a state is missing or invalid. All generators are unchanged.
    """
    if not isinstance(state, Mapping):
        raise ArgumentError("set_rng_state", type(state).__name__, "expected the result of rng_state()")
    missing = [name for name in _NAMES if name not in state]
    if missing:
        given = f"states of {', '.join(map(str, state)) or 'nothing'}"
        raise CheckpointError("set_rng_state", given, f"the states of {', '.join(missing)} are missing")
    before = rng_state()
    try:
        _set(state)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        _set(before)
        raise CheckpointError("set_rng_state", str(error), "expected the result of rng_state()") from error


def _set(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if torch.cuda.is_available():
        for device, cuda in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda, device)
