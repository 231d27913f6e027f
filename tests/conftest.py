"""Every test starts from the same random state and computes on one thread.

Torch is imported by the fixtures: the process that hands tests out to others (``-n 2``) runs none and can do without.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rows import drop_unselected

OURS = tuple(
    Path(place).resolve() for place in (tempfile.gettempdir(), Path(__file__).parents[1], sys.prefix, sys.base_prefix)
)
"""Folders in which tests, and the caches of Python, pytest and torch, may put files."""


def refuse_strangers_files(function: Callable[..., None], touched: int) -> Callable[..., None]:
    """Return the function, which puts a file where its argument at this place says, without power outside ``OURS``.

    Tests may run as root. An audit hook would do the same, and be called for each ``id()`` of deepcopy and of dynamo.
    """

    def careful(*args: Any, **kwargs: Any) -> None:
        path = args[touched] if len(args) > touched else kwargs["path" if touched == 0 else "dst"]
        if not {"dir_fd", "src_dir_fd", "dst_dir_fd"} & set(kwargs):
            target = Path(os.path.realpath(os.fsdecode(path)))
            if not any(target.is_relative_to(place) for place in OURS):
                raise PermissionError(f"a test tried to replace or remove {target}")
        function(*args, **kwargs)

    return careful


os.rename, os.replace = refuse_strangers_files(os.rename, 1), refuse_strangers_files(os.replace, 1)
os.remove, os.unlink = refuse_strangers_files(os.remove, 0), refuse_strangers_files(os.unlink, 0)

LONGEST = (
    "test_random_graphs_compile_in_both_directions",
    "test_random_arguments_raise_our_exceptions_or_succeed",
    "test_random_graphs_keep_the_contract",
)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterable[None]:
    """Leave out the rows of tables that ``-m`` would deselect: half of all, and each costs as much as one that runs."""
    yield
    drop_unselected(metafunc)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker one half of the tests, so that not both build the layers that a file tests, and let it steal."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: at the end one worker would be alone with them."""
    items.sort(key=lambda item: item.name.partition("[")[0] not in LONGEST)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what stays to the end, torch and thousands of tests, and start it less often.

    It took a fifteenth of the time of the contract's checks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded(one_thread: None) -> None:
    """Data and first weights that a test draws from the global generators are the same in every run."""
    import numpy as np
    import torch

    torch.default_generator.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
