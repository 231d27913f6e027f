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

from tests.benchmarks import blocks, field
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


def run(seconds: float, chosen: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a row for each kind of work: seconds of a turn, of its operations, of its products, of the best peer.

    With ``chosen``, only the rows whose name contains one of these texts.
    """
    found: list[dict[str, Any]] = []
    for family in filter(None, (field.choose(family, chosen) for family in field.families())):
        torch.manual_seed(0)
        contestants = {name: build() for name, build in family.builders.items() if name != "invgraph reversible"}
        x = torch.randn(family.batch, *family.shape)
        c = torch.randn(family.batch, family.context) if family.context else None
        for work in family.work:
            if work != "memory":
                jobs = {name: field._job(model, work, x, c) for name, model in contestants.items()}
                found.append(_row(f"{family.title}: {field._title(work)}", jobs, seconds, work == "train"))
    for name, (shape, condition, batch, permutation) in blocks.WORK.items():
        # Eight blocks' feature maps, recorded, would fill the memory; a block of each kernel has the same ratios.
        size, batch = (8, batch) if len(shape) == 1 else (2, 2)
        works = {kind: f"{size} all-in-one blocks, {name}: {kind}" for kind in ("density", "train step")}
        if not any(field.is_chosen(work, chosen) for work in works.values()):
            continue
        x, c = torch.randn(batch, *shape), torch.randn(batch, condition) if condition else None
        ours, other = (make(shape, condition, size, permutation) for make in (blocks.chain, blocks.peer))
        calls = {field.OURS: (ours, blocks._call(ours, x, c))}
        if other is not None:
            calls["FrEIA"] = other, blocks._call(other, x, None if c is None else [c])
        for kind, make in (("density", blocks._density), ("train step", blocks._train)):
            if not field.is_chosen(works[kind], chosen):
                continue
            jobs = {contestant: make(*pair) for contestant, pair in calls.items()}
            found.append(_row(works[kind], jobs, seconds, kind != "density"))
    return found


def _row(title: str, jobs: dict[str, Job], seconds: float, gradients: bool) -> dict[str, Any]:
    own = jobs[field.OURS]
    with torch.set_grad_enabled(gradients):
        own()
        with Recorder() as recorder:
            own()
        every = {**jobs, "kernels": replay(recorder.calls), "products": replay(recorder.products)}
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        timings = {name: one.minimum for name, one in interleave(every, seconds, 4, clock).items()}
    print(".", end="", flush=True)
    peers = {name: timings[name] for name in jobs if name != field.OURS}
    best = min(peers, key=lambda name: peers[name]) if peers else field.OURS
    alone = {name: timings[name] for name in ("kernels", "products")}
    return {"work": title, "own": timings[field.OURS], **alone, "operations": len(recorder.calls),
            "peer": timings[best], "over": best}  # fmt: skip


def list_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in reStructuredText, ms."""
    head = ("work", "best peer", "invgraph", "its operations alone (number)", "its products alone",
            "most that is left to win: peer / operations, peer / products")  # fmt: skip
    threads = torch.get_num_threads()
    title = "1 thread, least processor time" if threads == 1 else f"{threads} threads, least time"
    lines = [f".. list-table:: {title}, ms"]
    lines += ["   :class: compact sticky", "   :header-rows: 1", "   :stub-columns: 1", "   :widths: auto", ""]
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
