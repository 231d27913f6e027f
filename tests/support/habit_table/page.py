"""The table as text: what ``python -m tests.habits`` prints, and what docs/habits.rst shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .cell import HABITS, RUNNERS, Cell, Habit
from .graphs import GRAPHS

SPECIAL = {"continuous": "``ContinuousFlow``"}
"""Reason why a graph alone is refused."""

TITLES = {
    "copies": "Copies, averages, dtypes and devices",
    "training": "Training, exporting and modes",
    "modules": "Wrappers, sharding and derivatives",
    "on_layers": "Hooks, adapters and patches on layers",
    "settings": "Settings of torch, and processes",
}
"""Headings of the page, by the file whose habits stand below."""


def cells(
    habit: Habit, graphs: Iterable[str] = GRAPHS, runners: Iterable[str] = RUNNERS, every: int = 4
) -> Iterator[Cell]:
    """Every cell of a habit, in both directions.

    A compiled or exported graph takes seconds: one in ``every`` graphs is tried so, in one direction, in turn.
    """
    turn = list(HABITS).index(habit.name)
    for name in graphs:
        column = list(GRAPHS).index(name)
        for runner in runners:
            slow = runner in ("compiled", "exported")
            if slow and (turn + column) % every:
                continue
            for inverse in ((column // every + turn) % 2 == 1,) if slow else (False, True):
                if habit.applies(name, runner, inverse):
                    yield Cell(name, runner, inverse)


def verdicts(habit: Habit) -> dict[str, str]:
    """Entry of the table for each runner: "works", "refused", or "-" where there is nothing to try."""
    names = [name for name in GRAPHS if name not in habit.without]
    found = {}
    for runner in RUNNERS:
        refused = {name for name in names if habit.refusal(name, runner) is not None}
        word = "works" if not refused else "refused" if len(refused) == len(names) else "works, but"
        found[runner] = word if runner in habit.runners else "-"
    return found


def exceptions(habit: Habit) -> list[str]:
    """Layers on which the habit is refused where it works on others."""
    return [SPECIAL[str(key)] for key in habit.refused if key in GRAPHS]


def tally(outcomes: Counter[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in outcomes.items()) or "-"


def shown(runners: list[str]) -> str:
    """Names of runners, or in short that it is all of them."""
    if set(runners) >= set(RUNNERS):
        return "all"
    return "all but exported" if set(runners) >= set(RUNNERS) - {"exported"} else ", ".join(runners)


def rst() -> str:
    """The tables of docs/habits.rst, one for each file of habits."""
    lines: list[str] = []
    for file, title in TITLES.items():
        lines += [
            title, "-" * len(title), "", ".. list-table::", "   :class: compact fixed wide", "   :header-rows: 1",
            "   :widths: 44 16 16 24", "",
            "   * - Use", "     - Works", "     - Refused", "     - Why, or what to know",
        ]  # fmt: skip
        for habit in HABITS.values():
            if habit.check.__module__.rpartition(".")[2] == file:
                found = verdicts(habit)
                works = shown([runner for runner, word in found.items() if word.startswith("works")])
                others = shown([runner for runner, word in found.items() if word == "refused"])
                refused = ", ".join(filter(None, [others, *exceptions(habit)]))
                code = "; ".join(habit.code.splitlines())
                lines += [f"   * - {habit.name}", "", f"       ``{code}``", f"     - {works}", f"     - {refused}",
                          f"     - {habit.why}"]  # fmt: skip
        lines.append("")
    return "\n".join(line.rstrip() for line in lines)
