"""Search for the number of threads with which a training step on the CPU is fastest.

Torch's threads spin while they wait for each other. If other programs occupy the cores, a step with two threads can
take twenty times as long as with one, although two are faster on an idle machine. So the first steps are timed with
each number, and again when a step suddenly takes much longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

STEPS = 3
"""Steps timed with each number of threads; the first one, in which threads are started, is not counted."""

SLOW = 10
"""Factor by which a step is too slow: numbers are timed again, and a number that is being timed is given up."""

NOTICEABLE = 0.5
"""Seconds of a step below which it is never a reason to time the numbers again."""


def numbers_of_threads(most: int) -> tuple[int, ...]:
    """Return the numbers to try: the powers of two below ``most``, and ``most``."""
    return (*(2**k for k in range(most.bit_length()) if 2**k < most), most)


class Threads:
    """Number of threads of torch, chosen by timing the steps of a training run; none of the steps is wasted.

    Arguments:
        candidates: Numbers of threads to try. With one number, nothing is timed; with none, nothing is set either.
        say: Function that shows a message to the user.
        chosen: Number of threads that an earlier part of the run has chosen; 0 (default) for none.
        clock: Function that returns the time in seconds. Default: ``time.monotonic``.
        set_threads: Function that sets the number of threads. Default: ``torch.set_num_threads``.
    """

    def __init__(
        self,
        candidates: Sequence[int],
        say: Callable[[str], None],
        *,
        chosen: int = 0,
        clock: Callable[[], float] = time.monotonic,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        self.candidates, self.say, self.clock, self.set_threads = tuple(candidates), say, clock, set_threads
        self.chosen = 0
        self._usual = 0.0  # seconds of a step with the chosen number; 0 if unknown
        self._waiting: list[int] = []  # numbers that are still to be timed
        self._times: dict[int, list[float]] = {}
        if len(self.candidates) == 1 or chosen in self.candidates:
            self._choose(chosen if chosen in self.candidates else self.candidates[0])
        elif self.candidates:
            self._start()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time the step in the body, and set the number of threads for the next one."""
        began = self.clock()
        yield
        if len(self.candidates) > 1:
            self._note(self.clock() - began)

    def _note(self, seconds: float) -> None:
        if self._waiting:
            self._try_out(seconds)
        elif not self._usual:
            self._times.setdefault(self.chosen, []).append(seconds)
            if len(self._times[self.chosen]) == STEPS:
                self._usual = _mean(self._times[self.chosen])
        elif seconds > max(SLOW * self._usual, NOTICEABLE):
            self.say(f"a step took {seconds:.2f} s instead of {self._usual:.2f} s: timing the threads again")
            self._start()

    def _start(self) -> None:
        self._waiting, self._times = list(self.candidates), {}
        self.set_threads(self._waiting[0])

    def _try_out(self, seconds: float) -> None:
        """Take one step of the number being tried into account."""
        times = self._times.setdefault(self._waiting[0], [])
        times.append(seconds)
        best = min((_mean(other) for other in self._times.values() if len(other) == STEPS), default=float("inf"))
        if len(times) < STEPS and seconds <= SLOW * best:
            return
        self._waiting.pop(0)
        if self._waiting:
            self.set_threads(self._waiting[0])
            return
        means = {number: _mean(times) for number, times in self._times.items()}
        fastest = min(means, key=lambda number: means[number])
        measured = ", ".join(f"{_count(number)} {mean:.2g} s" for number, mean in means.items())
        self.say(f"timed a step: {measured}; training with {_count(fastest)}")
        self._choose(fastest, means[fastest])

    def _choose(self, number: int, usual: float = 0.0) -> None:
        self.chosen, self._usual, self._times = number, usual, {}
        self.set_threads(number)


def _mean(times: Sequence[float]) -> float:
    """Return the mean without the first time, unless it is the only one."""
    counted = times[1:] or times
    return sum(counted) / len(counted)


def _count(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
