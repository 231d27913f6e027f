"""Runs of equal blocks among the steps of a graph, which a drawing shows once with their number."""

from __future__ import annotations

from typing import NamedTuple

Maker = tuple[int, int]
"""Place of the step that makes a value, negative for what a call brings, and the number of the output."""


class Item(NamedTuple):
    """A step as a drawing sees it.

    Attributes:
        look: What its box shows, apart from its name.
        reads: Makers of the values that it transforms.
        given: Makers of the values that it is conditioned on.
    """

    look: tuple[str, ...]
    reads: tuple[Maker, ...]
    given: tuple[Maker, ...]


class Run(NamedTuple):
    """``times`` blocks of ``period`` steps each, from step ``start`` on."""

    start: int
    period: int
    times: int

    @property
    def end(self) -> int:
        """The first step after the run."""
        return self.start + self.period * self.times


LONGEST = 16
"""Most steps in one block."""


def runs(items: list[Item], returned: set[Maker]) -> list[Run]:
    """Return the runs that save at least two boxes, from the first step to the last; they do not overlap.

    Arguments:
        items: The steps, in forward order.
        returned: Makers of what the graph returns.
    """
    used_by: dict[int, set[int]] = {}
    for place, item in enumerate(items):
        for maker, _ in (*item.reads, *item.given):
            used_by.setdefault(maker, set()).add(place)
    for maker, _ in returned:
        used_by.setdefault(maker, set()).add(len(items))
    found: list[Run] = []
    start = 0
    while start < len(items):
        candidates = []
        for period in range(1, min(LONGEST, (len(items) - start) // 2) + 1):
            times = _times(items, start, period)
            while times > 1 and _leaks(Run(start, period, times), used_by):
                times -= 1
            candidates.append(Run(start, period, times))
        best = max(candidates, key=lambda run: (run.period * (run.times - 1), -run.period), default=None)
        if best is not None and best.period * (best.times - 1) >= 2:
            found.append(best)
            start = best.end
        else:
            start += 1
    return found


def _times(items: list[Item], start: int, period: int) -> int:
    """Return how many equal blocks follow each other, each reading what the one before it makes."""
    times = 1
    while start + period * (times + 1) <= len(items):
        begin = start + period * times
        linked = False
        for place in range(begin, begin + period):
            before, now = items[place - period], items[place]
            if before.look != now.look:
                return times
            sides = ((before.reads, now.reads), (before.given, now.given))
            if any(len(old) != len(new) for old, new in sides):
                return times
            for old, new in (pair for pairs in sides for pair in zip(*pairs, strict=True)):
                chained = begin - period <= new[0] < begin
                linked = linked or chained
                shifted = old == (new[0] - period, new[1]) and old[0] >= start
                outside = old == new and new[0] < start
                first = times == 1 and chained and old[0] < start
                if not (shifted or outside or first):
                    return times
        if not linked:
            return times
        times += 1
    return times


def _leaks(run: Run, used_by: dict[int, set[int]]) -> bool:
    """True if a value of any block but the last is read after the next block."""
    for place in range(run.start, run.end - run.period):
        block = (place - run.start) // run.period
        after = run.start + (block + 2) * run.period
        if any(reader >= min(after, run.end) for reader in used_by.get(place, ())):
            return True
    return False
