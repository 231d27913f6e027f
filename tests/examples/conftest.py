"""MNIST is unpacked once for all tests of the examples, which only read it: half a second each time."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def digits_once() -> Iterator[None]:
    from digits import data

    load = data.load
    once = functools.cache(load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            data, "load", lambda part, folder=data.FOLDER: (once if folder == data.FOLDER else load)(part, folder)
        )
        yield
