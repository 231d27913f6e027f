"""Rows left out by tests/support/rows.py are those that pytest deselects, whatever the expression of ``-m``."""

from __future__ import annotations

from pathlib import Path

import pytest
from rows import drop_unselected

TABLES = """
import pytest
slow, nightly = pytest.mark.slow, pytest.mark.nightly

@pytest.mark.parametrize("x", [object(), pytest.param(object(), marks=slow), object(),
                               pytest.param(object(), marks=nightly), pytest.param(object(), marks=(slow, nightly))])
def test_rows(x): pass

@slow
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=nightly)])
def test_slow(x): pass

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=slow)])
@pytest.mark.parametrize("y", [1, pytest.param(2, marks=nightly)])
def test_two_tables(x, y): pass

def test_bare(): pass
"""
SWITCHED_OFF = ("terminal", "cacheprovider", "unraisableexception")
"""Plugins of pytest; the last one collects garbage five times at the end, a second in a suite this large."""
MARKERS = "[pytest]\nmarkers =\n    slow: takes long\n    nightly: takes longer\n"


class Found:
    """Plugin that keeps the ids of the tests made, and of those selected."""

    def __init__(self, drop: bool) -> None:
        self.drop = drop
        self.selected: list[str] = []
        self.deselected = 0

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if self.drop:
            drop_unselected(metafunc)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.deselected += len(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.selected = [item.nodeid for item in session.items]


def collect(folder: Path, drop: bool, *arguments: str) -> Found:
    found = Found(drop)
    options = ["-c", str(folder / "pytest.ini"), "--rootdir", str(folder), "--import-mode=importlib", "--collect-only"]
    switched_off = [word for name in SWITCHED_OFF for word in ("-p", f"no:{name}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # looking for others' plugins takes half a second
        pytest.main([*options, "--assert=plain", *switched_off, *arguments], plugins=[found])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rows")
    (place / "pytest.ini").write_text(MARKERS)
    (place / "test_tables.py").write_text(TABLES)
    return place


EXPRESSIONS = ("not slow and not nightly", "slow", "nightly", "slow and not nightly", "slow or nightly",
               "slow and nightly", "not (slow or nightly)", "")  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_same_tests_are_selected(folder: Path, expression: str) -> None:
    all_rows, some = (collect(folder, drop, "-m", expression, str(folder)) for drop in (False, True))
    assert some.selected == all_rows.selected != []
    assert (some.deselected < all_rows.deselected) == (expression != "")


def test_rows_keep_their_ids(folder: Path) -> None:
    found = collect(folder, True, "-m", "nightly and not slow", str(folder))
    assert "test_tables.py::test_rows[x3]" in found.selected


def test_a_row_named_by_its_id_is_deselected_rather_than_missing(folder: Path) -> None:
    named = f"{folder / 'test_tables.py'}::test_rows[x1]"
    found = collect(folder, True, "-m", "not slow", named)
    assert (found.selected, found.deselected) == ([], 1)
    assert collect(folder, True, "-m", "slow", named).selected == ["test_tables.py::test_rows[x1]"]


@pytest.mark.parametrize("expression", ["slow and", "device(serial=1)"])
def test_other_expressions_are_left_to_pytest(folder: Path, expression: str) -> None:
    assert collect(folder, True, "-m", expression, str(folder)).selected == (
        collect(folder, False, "-m", expression, str(folder)).selected
    )


def test_this_suite_leaves_rows_out(request: pytest.FixtureRequest) -> None:
    plugins = request.config.pluginmanager.get_plugins()
    assert any(hasattr(plugin, "drop_unselected") for plugin in plugins)
