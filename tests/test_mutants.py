"""The planted mistakes of tests/support/mutants.py still fit the source."""

from __future__ import annotations

from mutants import MUTANTS, stale


def test_every_planted_mistake_has_its_place_in_the_source() -> None:
    """Whoever changes a line that a mutant changes has to change the mutant too."""
    assert [f"{mutant.file}: {mutant.told}" for mutant in MUTANTS if stale(mutant)] == []


def test_every_planted_mistake_is_told_once_and_changes_something() -> None:
    assert len({(mutant.file, mutant.told) for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
