"""The mistakes in the tables of tests/support/mutants still fit the source and the tests."""

from __future__ import annotations

from mutants import MUTANTS


def test_every_mistake_has_its_place_in_the_source_and_its_tests() -> None:
    """Whoever changes a line that a mutant changes has to change the mutant too."""
    problems = {f"{mutant.file}: {mutant.label}": mutant.problems() for mutant in MUTANTS}
    assert {name: found for name, found in problems.items() if found} == {}


def test_every_mistake_has_a_name_and_changes_something() -> None:
    assert len({(mutant.file, mutant.label) for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
