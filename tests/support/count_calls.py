"""Count the files and Python calls of a pass through a small graph, as a measure of what a reader has to follow.

``python tests/support/count_calls.py`` prints a table for a graph of Flatten and two blocks of Permute and an affine
MLP Coupling under a condition. A call is a "call" event of ``sys.setprofile`` in a file of the package; comprehensions
count, functions of torch do not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

import invgraph as ig

PACKAGE = str(Path(ig.__file__).parent)


class Trip(NamedTuple):
    """Number of Python calls in each file, and in each function, during one call."""

    files: Counter[str]
    functions: Counter[str]


def count(call: Callable[[], object]) -> Trip:
    """Count the calls of a second run, after a first one has filled all caches."""
    call()
    files: Counter[str] = Counter()
    functions: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE):
            files[name.removeprefix(PACKAGE + "/")] += 1
            functions[f"{name.removeprefix(PACKAGE + '/')}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return Trip(files, functions)


def small_graph() -> ig.Graph:
    """Build a graph of Flatten and two blocks of Permute and a conditional Coupling."""
    x, c = ig.InputNode(1, 2, 2, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Flatten)
    for _ in range(2):
        h = ig.Node(h, ig.Permute)
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}, conditions=c)
    return ig.testing.randomize(ig.Graph(x, h, c))


def trips() -> dict[str, Trip]:
    """Return the counts of a call, of sampling from a bound graph, and of a reversible backward pass."""
    graph = small_graph()
    x, c = torch.randn(5, 1, 2, 2), torch.randn(5, 3)
    bound, z = graph.bind(c), torch.randn(7, 5, 4)
    runner = ig.reversible(graph)

    def sample() -> None:
        with torch.no_grad():
            bound.inverse(z)

    losses = iter([runner(x, c) for _ in range(2)])

    def backward() -> None:
        y, log_det = next(losses)
        (y.square().sum() - log_det.sum()).backward()

    return {"graph(x, c)": count(lambda: graph(x, c)), "bound.inverse(z)": count(sample), "reversible": count(backward)}


def main() -> None:
    torch.autograd.set_multithreading_enabled(False)  # so that the backward pass runs in the profiled thread
    for name, trip in trips().items():
        print(f"{name:18} {len(trip.files):3} files {trip.files.total():4} calls")
        if "-v" in sys.argv:
            for where, calls in trip.functions.most_common():
                print(f"    {calls:4} {where}")


if __name__ == "__main__":
    main()
