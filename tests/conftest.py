"""Every test starts from the same random state and computes on one thread."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

LONGEST = (
    "test_random_graphs_compile_in_both_directions",
    "test_random_arguments_raise_our_exceptions_or_succeed",
    "test_inductor_gives_eagers_gradients",
    "test_random_graphs_keep_the_contract",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: at the end one worker would be alone with them."""
    items.sort(key=lambda item: item.name.partition("[")[0] not in LONGEST)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Data and first weights that a test draws from the global generators are the same in every run."""
    torch.default_generator.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
