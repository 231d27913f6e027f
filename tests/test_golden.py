"""Every layer gives what it gave: see tests/support/golden.py for how the values are made."""

from __future__ import annotations

import json

import pytest
from golden import FILE, keyed, values

import invgraph as ig

GOLDEN = json.loads(FILE.read_text())
CASES = keyed()


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "readable"])
@pytest.mark.parametrize("name", [name for name in CASES if name in GOLDEN])
def test_values_are_the_golden_ones(name: str, kernels: bool) -> None:
    with ig.fused(kernels):
        found, wanted = values(name), GOLDEN[name]
    tolerance = max(CASES[name].tolerance, 1e-9)
    for direction in ("forward", "inverse"):
        assert found[direction] == pytest.approx(wanted[direction], rel=tolerance, abs=tolerance)


def test_whole_graphs_are_among_them() -> None:
    assert any(name.startswith("Graph") for name in GOLDEN)


def test_every_case_has_golden_values_and_none_is_left_over() -> None:
    assert set(GOLDEN) == set(CASES), "after adding, renaming or removing cases, run `python tests/support/golden.py`"
