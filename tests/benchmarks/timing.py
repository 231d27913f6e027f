"""Interleaved timing: every contestant takes its turn in each round, so that all meet the same machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

Job = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant."""

    minimum: float
    median: float
    rounds: int


def interleave(
    jobs: Mapping[str, Job], seconds: float, least: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Time the jobs in turns, after one turn that does not count, until the seconds are over.

    With ``time.process_time`` as clock, what other processes do matters less.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    start = time.perf_counter()
    gc.disable()
    try:
        while time.perf_counter() - start < seconds or len(next(iter(times.values()))) < least:
            for name, job in jobs.items():
                before = clock()
                job()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times[name].append(clock() - before)
            gc.collect(0)
    finally:
        gc.enable()
    return {name: Timing(min(own), statistics.median(own), len(own)) for name, own in times.items()}


def rows(timings: Mapping[str, Timing], reference: str, **told: object) -> list[dict[str, object]]:
    """A row for each contestant, with its ratio (of minima) to the reference's."""
    base = timings[reference].minimum
    return [
        {**told, "contestant": name, **asdict(timing), "ratio": timing.minimum / base, "to": reference}
        for name, timing in timings.items()
    ]


def saved_bytes(call: Job) -> int:
    """Bytes that autograd keeps of a call for its backward pass, without parameters and views of them."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    total = sum(kept.values())
    del result
    return total


def train_step(model: Any, x: torch.Tensor, c: Any) -> Job:
    """Loss and gradients of a model that returns latents and log-determinants; no optimizer."""
    parameters = list(model.parameters())  # as an optimizer holds them

    def step() -> None:
        for p in parameters:
            p.grad = None
        z, log_det = model(x, c)
        (z.square().sum() / 2 - log_det.sum()).backward()

    return step
