"""Rows of parametrized tests that the expression of ``-m`` does not select: no test is made of them."""

from __future__ import annotations

import functools

import pytest
from _pytest.mark.expression import Expression


def drop_unselected(metafunc: pytest.Metafunc) -> None:
    """Drop the rows that pytest would deselect by their marks, except the first if none would be left.

    Pytest has computed the ids of all rows by then, so that those of the others do not change. Whoever names tests
    by ``::`` is told by pytest what became of each.
    """
    expression = metafunc.config.getoption("markexpr")
    if not expression or any("::" in argument for argument in metafunc.config.args):
        return
    own = frozenset(mark.name for mark in metafunc.definition.iter_markers())
    calls = metafunc._calls
    selected = [call for call in calls if is_selected(expression, own | {mark.name for mark in call.marks})]
    metafunc._calls = selected or calls[:1]


@functools.cache
def is_selected(expression: str, marks: frozenset[str]) -> bool:
    """True if a test with these marks can match; arguments of marks (``-m "device(serial=1)"``) are left to pytest."""
    if "=" in expression:
        return True
    try:
        return Expression.compile(expression).evaluate(lambda name, /, **_: name in marks)
    except SyntaxError:  # pytest says what is wrong when it has collected all
        return True
