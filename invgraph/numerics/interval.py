"""Intervals of real numbers: the domains and ranges of transforms and layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """Interval of real numbers. Whether its ends belong to it is left open.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float = -math.inf
    high: float = math.inf

    def covers(self, other: Interval) -> bool:
        """True if another interval lies within this one, up to rounding in float32."""
        room = 1e-6 * max((abs(end) for end in (*self, *other) if math.isfinite(end)), default=0.0)
        return other.low >= self.low - room and other.high <= self.high + room

    def __str__(self) -> str:
        if self == REALS:
            return "all real numbers"
        if self == Interval(0.0, math.inf):
            return "positive numbers"
        return f"({self.low + 0.0:g}, {self.high + 0.0:g})"  # 0 for -0


class Part(Interval):
    """An unknown part of an interval, such as what a learned map makes of numbers between 0 and 1."""

    def covers(self, other: Interval) -> bool:
        """False: nothing is known to lie in it."""
        return False

    def __str__(self) -> str:
        return f"a part of {super().__str__()}"


class Joined(Interval):
    """Interval of values whose elements lie in different ones, such as those of two values that were joined."""

    def covers(self, other: Interval) -> bool:
        """False: some elements fill a part of it."""
        return False

    def __str__(self) -> str:
        return f"different intervals within {super().__str__()}"


class Loose(Interval):
    """Interval of values whose inverse takes any number for the nearest of them, such as those of dequantization.

    What follows may map them to any numbers, as Glow does without a logit.
    """


REALS = Interval()
Known = Interval | None
"""An interval; None if it is not known."""


def is_reals(interval: Known) -> bool:
    """True for all real numbers."""
    return interval == REALS and not isinstance(interval, (Part, Joined))


def confined(interval: Known) -> Known:
    """Return what is known of the values that a layer is given; None if its inverse may return any numbers."""
    return None if isinstance(interval, Loose) else interval


def carried(source: Known, domain: Known, found: Known) -> Known:
    """Return the interval ``found`` of a map from ``domain``, of which only the ``source`` is passed on.

    Nothing is known of data, so a source that is not known counts as the whole domain.
    """
    source = confined(source)
    if source is None or domain is None or found is None or source.covers(domain):
        return found
    return Part(found.low, found.high)


def hull(intervals: Iterable[Known]) -> Known:
    """Return the smallest interval that covers all of these; None if one is not known."""
    found = list(intervals)
    known = [interval for interval in found if interval is not None]
    if len(known) < len(found) or not known:
        return None
    kinds = {type(interval) for interval in known}
    kind: type[Interval] = next(iter(kinds)) if len(kinds) == 1 else Interval
    for special in (Joined, Part):
        kind = special if special in kinds else kind
    return kind(min(interval.low for interval in known), max(interval.high for interval in known))


def joined(intervals: Iterable[Known]) -> Known:
    """Return what is known of values that are joined; one that is not known, such as data, may be any numbers."""
    found = list(intervals)
    if all(confined(interval) is None or is_reals(interval) for interval in found):
        return hull(found)
    known = [REALS if interval is None else interval for interval in found]
    whole = hull(known)  # a part of an interval equals it, but is of another kind
    same = all(interval == known[0] for interval in known)
    return whole if same or isinstance(whole, Part) or whole is None else Joined(whole.low, whole.high)
