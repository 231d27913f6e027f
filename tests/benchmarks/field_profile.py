"""Profile of the section ``field``: the operations of a turn, run again without what calls them.

All operations of a turn are recorded below autograd, with their tensors. Run again one after the other they take the
time that no interpreter, module or autograd node can spare; the products (and convolutions) among them take the time
that nothing but fewer or faster products can spare, compiled or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import field
from tests.benchmarks.timing import Job, interleave

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmm_", "mv", "convolution", "convolution_backward")

Call = Callable[[], object]


class Recorder(TorchDispatchMode):
    """Keep each operation as a call that does it again."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Call] = []
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        kept = [value.detach() if isinstance(value, torch.Tensor) else value for value in args]

        def call() -> object:
            return function(*kept, **keywords)

        self.calls.append(call)
        if str(function).split(".")[1] in PRODUCTS:
            self.products.append(call)
        return function(*args, **keywords)


def replay(calls: Sequence[Call]) -> Job:
    def run() -> None:
        with torch.no_grad():
            for call in calls:
                call()

    return run


def run(seconds: float, families: Sequence[field.Family] | None = None) -> list[dict[str, Any]]:
    """A row for each kind of work: seconds of a turn, of its operations alone, of its products alone, of a peer."""
    found: list[dict[str, Any]] = []
    for family in field.families() if families is None else families:
        torch.manual_seed(0)
        contestants = {name: build() for name, build in family.builders.items() if name != "invgraph reversible"}
        x = torch.randn(family.batch, *family.shape)
        c = torch.randn(family.batch, family.context) if family.context else None
        for work in family.work:
            if work != "memory":
                found.append(
                    _row(family, work, {n: field._job(m, work, x, c) for n, m in contestants.items()}, seconds)
                )
                print(".", end="", flush=True)
    return found


def _row(family: field.Family, work: str | int, jobs: dict[str, Job], seconds: float) -> dict[str, Any]:
    own = jobs[field.OURS]
    with field._gradients(work):
        own()
        with Recorder() as recorder:
            own()
        every = {**jobs, "kernels": replay(recorder.calls), "products": replay(recorder.products)}
        timings = {name: one.minimum for name, one in interleave(every, seconds, 5, time.process_time).items()}
    peers = {name: timings[name] for name in jobs if name != field.OURS}
    return {
        "work": f"{family.title}: {field._title(work)}",
        "own": timings[field.OURS],
        "kernels": timings["kernels"],
        "products": timings["products"],
        "operations": len(recorder.calls),
        "peer": min(peers.values()),
        "over": min(peers, key=lambda name: peers[name]),
    }


def list_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in reStructuredText, ms."""
    head = ("work", "best peer", "invgraph", "its operations alone (number)", "its products alone",
            "most that is left to win: peer / operations, peer / products")  # fmt: skip
    lines = [".. list-table:: 1 thread, least processor time, ms", "   :header-rows: 1", ""]
    lines += [f"   {'*' if index == 0 else ' '} - {name}" for index, name in enumerate(head)]
    for row in rows:
        ms = {
            name: f"{row[name] * 1e3:.{1 if row[name] < 0.1 else 0}f}"
            for name in ("peer", "own", "kernels", "products")
        }
        bounds = f"{row['peer'] / row['kernels']:.2f}, {row['peer'] / row['products']:.2f}"
        cells = (row["work"], f"{ms['peer']} ({row['over']})", f"{ms['own']} ({row['peer'] / row['own']:.2f})",
                 f"{ms['kernels']} ({row['operations']:,})", ms["products"], bounds)  # fmt: skip
        lines += [f"   {'*' if index == 0 else ' '} - {text}" for index, text in enumerate(cells)]
    return "\n".join([*lines, ""])
