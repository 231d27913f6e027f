"""Every test starts from the same random state and computes on one thread."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

OURS = tuple(
    Path(place).resolve() for place in (tempfile.gettempdir(), Path(__file__).parents[1], sys.prefix, sys.base_prefix)
)
"""Folders in which tests, and the caches of Python, pytest and torch, may put files."""


def refuse_strangers_files(event: str, arguments: tuple[object, ...]) -> None:
    """Let nothing be renamed over, or removed from, what is not the tests' own: they may run as root."""
    if event not in ("os.rename", "os.remove"):
        return
    path, folder = arguments[1 if event == "os.rename" else 0], arguments[-1]
    if isinstance(path, (str, os.PathLike)) and folder in (-1, None):
        target = Path(os.path.realpath(path))
        if not any(target.is_relative_to(place) for place in OURS):
            raise PermissionError(f"a test tried to replace or remove {target}")


sys.addaudithook(refuse_strangers_files)

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
