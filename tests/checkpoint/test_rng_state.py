"""The states of the random generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import invgraph as ig


def drawn() -> tuple[Any, ...]:
    """Numbers from the three global generators."""
    return torch.rand(2).tolist(), np.random.rand(), random.random()


def test_random_states_are_set_all_or_none() -> None:
    state = ig.rng_state()
    first = drawn()
    later = ig.rng_state()
    second = drawn()
    ig.set_rng_state(state)
    assert drawn() == first
    # The generators stand at ``later`` now: where one state is refused, none of the others may go back to ``state``.
    with pytest.raises(ig.CheckpointError, match="expected the result of rng_state"):
        ig.set_rng_state({**state, "torch": torch.zeros(3, dtype=torch.uint8)})
    with pytest.raises(ig.CheckpointError, match="expected the result of rng_state"):
        ig.set_rng_state({**state, "python": "x"})
    with pytest.raises(ig.CheckpointError, match="the states of numpy, python are missing"):
        ig.set_rng_state({"torch": state["torch"]})
    with pytest.raises(ig.ArgumentError, match="expected the result of rng_state"):
        ig.set_rng_state(None)  # type: ignore[arg-type]
    assert drawn() == second
    ig.set_rng_state(later)
    assert drawn() == second
