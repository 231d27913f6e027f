"""Every cell of docs/comparison.rst is shown by code, for each library that is installed.

flowjax needs JAX, which the other tests do without. In an environment that has flowjax and pytest alone:
``PYTHONPATH=tests/support pytest -m slow tests/test_comparison.py -k flowjax --noconftest -c /dev/null``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "comparison.rst"
PEERS = ("FrEIA", "nflows", "normflows", "zuko", "flowjax")


def table() -> dict[str, list[str]]:
    """Row -> its cells, the first of them this library's."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^   \* -(.*)\n((?:     - .*\n)+)", text, re.M)
    return {row.strip(): [cell.strip() for cell in re.findall(r"     - (.*)\n", cells)] for row, cells in found}


TABLE = table()


def test_every_row_has_a_cell_for_every_library() -> None:
    assert TABLE.pop("") == ["invgraph", *PEERS]
    assert {len(cells) for cells in TABLE.values()} == {1 + len(PEERS)}


def test_the_versions_are_those_that_the_tests_run_with() -> None:
    pinned = (PAGE.parent.parent / "constraints.txt").read_text(encoding="utf-8")
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for peer in PEERS[:-1]:
        version = re.search(rf"^{peer}==(\d+\.\d+)", pinned, re.M | re.IGNORECASE)
        assert version is not None
        assert f"{peer} {version[1]}" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", PEERS)
def test_the_cells_of_a_library_are_true(peer: str) -> None:
    pytest.importorskip(peer)
    proofs = importlib.import_module(f"peers.for_{peer.lower()}").PROOFS
    column = 1 + PEERS.index(peer)
    assert {row: cell for row, (cell, _) in proofs.items()} == {
        row: cells[column] for row, cells in TABLE.items() if row
    }
    wrong = {}
    for row, (_, prove) in proofs.items():
        try:
            prove()
        except Exception as error:
            wrong[row] = f"{type(error).__name__}: {error}"
    assert not wrong
