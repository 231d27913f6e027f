"""Progress bar with rates and remaining time, and a Ctrl-C handler that lets the current step finish."""

from __future__ import annotations

import math
import signal
import sys
import time
from types import FrameType
from typing import Any

import torch
from torch import distributed


class Progress:
    """Progress bar on a terminal, an occasional line elsewhere.

    Arguments:
        start: First step, counted from 0.
        steps: Total number of steps.
        batch: Batch size.
        quiet: If True, print nothing. Default: False.
    """

    def __init__(self, start: int, steps: int, batch: int, quiet: bool = False) -> None:
        self.start, self.steps, self.batch, self.quiet = start, steps, batch, quiet
        self.terminal = sys.stderr.isatty()
        self.began = self.shown = time.monotonic()

    def show(self, step: int, loss: float, rate: float) -> None:
        """Show the progress after this many steps."""
        now = time.monotonic()
        if self.quiet or (now - self.shown < (0.2 if self.terminal else 20) and step != self.steps):
            return
        self.shown = now
        speed = (step - self.start) / max(now - self.began, 1e-9)
        line = (
            f"{_bar(step / self.steps)} step {step:,} of {self.steps:,}  loss {loss:+.4f}  rate {rate:.1e}  "
            f"{speed:.1f} steps/s  {speed * self.batch:,.0f} rows/s  {clock((self.steps - step) / speed)} left"
        )
        print(
            f"\r\x1b[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def write(self, message: str) -> None:
        """Print a message on a line of its own, above the bar."""
        if not self.quiet:
            print(f"\r\x1b[K{message}" if self.terminal else message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line of the bar."""
        if self.terminal and not self.quiet:
            print(file=sys.stderr)


def _bar(fraction: float, width: int = 24) -> str:
    full = int(fraction * width)
    return f"[{'#' * full}{'.' * (width - full)}]"


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02d} h"


class Stop:
    """Context in which Ctrl-C and SIGTERM stop the run after the current step.

    A second signal, at least two seconds later, stops it immediately. (Under torchrun, one Ctrl-C arrives twice: from
    the terminal, and from torchrun.)

    Arguments:
        device: Device on which the processes of a group, if there is one, agree to stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.signaled = False
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signaled and now - self._first > 2:
            raise KeyboardInterrupt
        self._first = self._first if self.signaled else now
        self.signaled = True

    def asked(self) -> bool:
        """True if any process was asked to stop; all of them then stop after the same step."""
        if not distributed.is_initialized():
            return self.signaled
        flag = torch.tensor(float(self.signaled), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())
