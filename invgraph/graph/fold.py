"""Runs of equal blocks among the steps of a graph, which a drawing shows once with their number."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

Maker = tuple[int, int]
"""Place of the step that makes a value, negative for what a call brings, and the number of the output."""

Readers = defaultdict[int, dict[int, set[int]]]
"""Places of the steps that read a value, by the place of its maker and the number of the output."""


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
    readers: Readers = defaultdict(lambda: defaultdict(set))
    for place, item in enumerate(items):
        for maker, port in (*item.reads, *item.given):
            readers[maker][port].add(place)
    for maker, port in returned:
        readers[maker][port].add(len(items))
    found: list[Run] = []
    start = 0
    while start < len(items):
        candidates = []
        for period in range(1, min(LONGEST, (len(items) - start) // 2) + 1):
            times = _times(items, start, period)
            while times > 1 and _leaks(Run(start, period, times), readers):
                times -= 1
            if times > 1 and not _is_plain(items, Run(start, period, times), readers):
                times = 1
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


def _leaks(run: Run, readers: Readers) -> bool:
    """True if a value of any block but the last is read after the next block."""
    for place in range(run.start, run.end - run.period):
        block = (place - run.start) // run.period
        after = min(run.start + (block + 2) * run.period, run.end)
        if any(max(places) >= after for places in readers[place].values()):
            return True
    return False


def _is_plain(items: list[Item], run: Run, readers: Readers) -> bool:
    """True if a picture of one block, with what enters and leaves it, says what each block passes to the next.

    It is read like this: data that leave a block enter the next one in the same order, and all blocks have the same
    conditions. If a block transforms no data, one value enters it, and one leaves it for the next block.
    """
    entries = _entries(items, run)
    carried = {old: new for old, new, _ in entries if new != old}
    if any(carried.get(old, old) != new for old, new, _ in entries):
        return False  # different nodes of the next block read something else instead of one value
    data = list(dict.fromkeys(old for old, _, is_data in entries if is_data))
    if data:
        passed = [carried.get(old, old) for old in data]
        return set(carried) == set(data) and passed == _in_order(items, run, data, passed)
    last = range(run.end - run.period, run.end)
    left = {(place, port) for place in last for port, places in readers[place].items() if max(places) >= run.end}
    shift = run.end - run.period - run.start
    return len({old for old, _, _ in entries}) == 1 and left == {(new + shift, port) for new, port in carried.values()}


def _entries(items: list[Item], run: Run) -> list[tuple[Maker, Maker, bool]]:
    """Return what the first block reads from outside, what the second reads instead, and if it is data."""
    found: list[tuple[Maker, Maker, bool]] = []
    for place in range(run.start, run.start + run.period):
        first, second = items[place], items[place + run.period]
        for olds, news, is_data in ((first.reads, second.reads, True), (first.given, second.given, False)):
            found += [(old, new, is_data) for old, new in zip(olds, news, strict=True) if old[0] < run.start]
    return found


def _in_order(items: list[Item], run: Run, data: list[Maker], passed: list[Maker]) -> list[Maker]:
    """Return what the first block passes on, in the order of the data that it comes from, then of the steps."""
    origins: dict[int, set[int]] = {}
    for place in range(run.start, run.start + run.period):
        reads = items[place].reads
        origins[place] = {data.index(maker) for maker in reads if maker[0] < run.start}
        origins[place].update(*(origins[maker[0]] for maker in reads if maker[0] >= run.start))
    return sorted(passed, key=lambda maker: (sorted(origins[maker[0]]), maker))
