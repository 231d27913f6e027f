"""The work that people do with flows: splines and autoregressive flows under a condition, images, depth and width.

Each row has every peer that can do it, with equal networks and numbers of steps, and this library eager and compiled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks import field_models as models
from tests.benchmarks.timing import Job, Timing, interleave

OURS, COMPILED = "invgraph", "invgraph compiled"
Builder = Callable[[], models.Model]


@dataclass(frozen=True)
class Family:
    """Contestants with one model, and the work that they do with it.

    Attributes:
        title: The model, as the table shows it.
        builders: The contestants; the first is this library.
        work: The kinds of work: ``"train"``, ``"log_prob"``, a number of samples, ``"memory"``.
        shape: Shape of the data, without the batch.
        context: Numbers of the condition.
        batch: Batch of training and density.
        compiled: The work that this library's model does compiled as well.
    """

    title: str
    builders: Mapping[str, Builder]
    work: tuple[str | int, ...]
    shape: tuple[int, ...]
    context: int = 0
    batch: int = 256
    compiled: tuple[str | int, ...] = ()


def _family(
    kind: str, title: str, sizes: tuple[Any, ...], work: tuple[str | int, ...], batch: int, eager: tuple[int, ...] = ()
) -> Family:
    """A family of fully connected flows; the sizes are those of data and context, the steps and the hidden layers.

    Samples in ``eager`` are not compiled: that takes minutes.
    """
    peers = ("own", "nflows", "zuko")
    makers = {name: getattr(models, f"{kind}_{name}") for name in peers}
    builders = {OURS if name == "own" else name: (lambda maker=maker: maker(*sizes)) for name, maker in makers.items()}
    compiled = tuple(one for one in work if one not in eager)
    return Family(title, builders, work, (sizes[0],), sizes[1], batch, compiled)


def families() -> list[Family]:
    """The rows' models."""
    narrow, wide, widest = (64, 64), (256, 256), (512, 512)
    coupling = {OURS: models.coupling_own, "invgraph reversible": models.coupling_reversible,
                "nflows": models.coupling_nflows, "zuko": models.coupling_zuko,
                "FrEIA": models.coupling_freia}  # fmt: skip
    deep = {name: (lambda make=make: make(16, 1000, 16)) for name, make in coupling.items()}
    large = {name: (lambda make=make: make(4096, 8, 512)) for name, make in coupling.items()}
    glow = {OURS: models.glow_own, "normflows": models.glow_normflows, "FrEIA": models.glow_freia}
    equal = {OURS: models.glow_blocks_own, "FrEIA": models.glow_freia}
    return [
        _family("spline", "spline coupling, 5 | 10", (5, 10, 5, narrow), ("train", "log_prob", 10_000), 256),
        _family("spline", "spline coupling, 10 | 20", (10, 20, 8, narrow), ("train", "log_prob", 10_000), 256),
        _family("spline", "spline coupling, 64", (64, 0, 10, wide), ("train", "log_prob", "memory"), 512),
        _family("maf", "MAF, 4 | 10", (4, 10, 5, narrow), (1000,), 256),
        _family("maf", "MAF, 8 | 10", (8, 10, 5, narrow), ("train", 1000), 256),
        _family("maf", "MAF, 21", (21, 0, 5, wide), ("train", 1000), 512, (1000,)),
        _family("maf", "MAF, 64", (64, 0, 5, widest), (1000,), 512, (1000,)),
        Family("Glow, 3 x 32 x 32", glow, ("train", 16, "memory"), (3, 32, 32), 0, 16, ("train", 16)),
        Family("Glow of all-in-one blocks", equal, ("train", 16, "memory"), (3, 32, 32), 0, 16, ("train", 16)),
        Family("1,000 couplings, 16", deep, ("train", "memory"), (16,), batch=64),
        Family("couplings, 4,096", large, ("train", "memory"), (4096,), batch=64),
    ]


def run(
    seconds: float,
    compiled: bool,
    threads: tuple[int, ...] = (1, 2),
    device: str = "cpu",
    done: Callable[[list[dict[str, Any]]], None] | None = None,
    chosen: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Measure all rows, each for about so many seconds per number of threads; tell ``done`` after each model.

    With ``chosen``, only the rows whose name contains one of these texts.
    """
    found: list[dict[str, Any]] = []
    before = torch.get_num_threads()
    try:
        for family in filter(None, (choose(family, chosen) for family in families())):
            found += _measure(family, seconds, compiled, threads, device)
            if done is not None:
                done(found)
    finally:
        torch.set_num_threads(before)
    return found


def choose(family: Family, chosen: Sequence[str]) -> Family | None:
    """Return the family with only the work whose rows contain one of these texts; None if there is none."""
    work = [one for one in family.work if is_chosen(f"{family.title}: {_title(one)}", chosen)]
    return replace(family, work=tuple(work)) if work else None


def is_chosen(row: str, chosen: Sequence[str]) -> bool:
    """True if the name of a row contains one of these texts, or if there are none."""
    return not chosen or any(text in row for text in chosen)


def _measure(
    family: Family, seconds: float, compiled: bool, threads: tuple[int, ...], device: str
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    contestants: dict[str, models.Model] = {}
    failed: list[dict[str, Any]] = []
    for name, build in family.builders.items():
        try:
            contestants[name] = _moved(build(), device)
        except ImportError as error:
            failed.append({"work": family.title, "contestant": name, "failed": str(error)})
    found: list[dict[str, Any]] = failed
    x = torch.randn(family.batch, *family.shape, device=device)
    c = torch.randn(family.batch, family.context, device=device) if family.context else None
    for count in threads:
        torch.set_num_threads(count)
        for work in family.work:
            jobs = {name: _job(model, work, x, c) for name, model in contestants.items()}
            told = {"work": f"{family.title}: {_title(work)}", "batch": family.batch, "threads": count}
            if work == "memory":
                if count == threads[0]:
                    peaks = {name: peak_bytes(job, device) for name, job in jobs.items()}
                    found += [{**told, "contestant": name, "peak_bytes": peak} for name, peak in peaks.items()]
                continue
            if compiled and work in family.compiled and count == threads[0]:
                jobs[COMPILED] = _job(_compiled(family, device), work, x, c)
            with _gradients(work):
                timings = (interleave if device == "cpu" else interleave_events)(jobs, seconds, 3)
            found += _rows(timings, told)
            print(".", end="", flush=True)
    return found


def _title(work: str | int) -> str:
    if isinstance(work, int):
        return f"{work:,} samples"
    return {"train": "train step", "log_prob": "density", "memory": "peak memory of a train step"}[work]


def _gradients(work: str | int) -> Any:
    return torch.enable_grad() if work == "train" else torch.no_grad()


def _moved(model: models.Model, device: str) -> models.Model:
    model.module.to(device)
    return model


def _compiled(family: Family, device: str) -> models.Model:
    model = _moved(family.builders[OURS](), device)
    graph: Any = model.module.graph
    graph.compile(dynamic=False, **({} if device == "cpu" else {"mode": "reduce-overhead"}))
    return model


def _job(model: models.Model, work: str | int, x: Tensor, c: Tensor | None) -> Job:
    """Work of a contestant in one turn."""
    parameters = list(model.module.parameters())

    def train() -> None:
        for p in parameters:
            p.grad = None
        with torch.enable_grad():
            (-model.log_prob(x, c).mean()).backward()

    if isinstance(work, int):
        return lambda: model.sample(work, None if c is None else c[:1])
    return (lambda: model.log_prob(x, c)) if work == "log_prob" else train


def _rows(timings: Mapping[str, Timing], told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each contestant, and how many times faster than the best peer it is."""
    peers = {name: timing.minimum for name, timing in timings.items() if not name.startswith(OURS)}
    best = min(peers, key=lambda name: peers[name]) if peers else None
    for name, timing in timings.items():
        row = {**told, "contestant": name, "minimum": timing.minimum, "median": timing.median, "rounds": timing.rounds}
        if best is not None:
            row |= {"speedup": peers[best] / timing.minimum, "over": best}
        yield row


def interleave_events(jobs: Mapping[str, Job], seconds: float, least: int) -> dict[str, Timing]:
    """Time the jobs in turns by CUDA events."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        for _ in range(3):
            job()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, job in jobs.items():
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()  # type: ignore[no-untyped-call]
            job()
            stop.record()  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(stop) / 1e3)
    return {name: Timing(min(own), statistics.median(own), len(own)) for name, own in times.items()}


def peak_bytes(job: Job, device: str, warm: bool = True) -> int:
    """The most memory that a job holds at once, apart from what was there before; ``warm`` runs it once before."""
    if warm:
        job()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        job()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
