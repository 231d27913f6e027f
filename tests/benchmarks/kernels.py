"""Gain of each hand-derived kernel: the same work with and without it, all others left on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import invgraph as ig
from invgraph.fused import in_place
from invgraph.layers import coupling
from invgraph.nets import convolution
from invgraph.transforms import affine
from tests.benchmarks import bedrooms, mnist
from tests.benchmarks.timing import Job, interleave, rows, saved_bytes, train_step


def _formula(kernel: Any, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = kernel.formula(x, params)
    return found


REPLACED: dict[str, tuple[Any, str, Any]] = {
    "affine_coupling": (coupling.Coupling, "_kernel", lambda *given: None),
    "affine": (affine, "map_affinely", _formula),
    "convolution": (convolution, "prefers_shifted_sum", lambda *given: False),
    "in_place": (in_place, "is_overwritable", lambda layer: False),
}
"""By the name of a kernel: the place where it is called, and what stands there without it."""


@contextmanager
def without(kernel: str) -> Iterator[None]:
    """Turn one kernel off."""
    place, name, plain = REPLACED[kernel]
    with mock.patch.object(place, name, plain):
        yield


class Unconditional(torch.nn.Module):
    """A graph without conditions, called with none."""

    def __init__(self, graph: ig.Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor, c: Any) -> Any:
        return self.graph(x)


def feature_maps() -> ig.Graph:
    """Return four couplings of 64 channels at 32 x 32, as in anomaly detection."""
    x = h = ig.InputNode(64, 32, 32, name="features")
    for _ in range(4):
        h = ig.Node(h, ig.Permute)
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(32, 1)})
    return ig.Graph(x, h)


def works() -> dict[str, tuple[Job, Callable[[], object] | None]]:
    """Return jobs by name, each with the call whose saved bytes are counted."""
    digits, colors = mnist.graph(), bedrooms.graph()
    found: dict[str, tuple[Job, Callable[[], object] | None]] = {}
    for batch in (256, 16):
        x, c = torch.randn(batch, mnist.WIDTH), torch.eye(mnist.CLASSES)[torch.arange(batch) % mnist.CLASSES]
        step = train_step(digits, x, c)
        found[f"MNIST step, {batch}"] = step, lambda x=x, c=c: digits(x, c)  # type: ignore[misc]
        found[f"MNIST inference, {batch}"] = _without_grad(lambda x=x, c=c: digits.inverse(x, c)), None  # type: ignore[misc]
    features = tuple(torch.randn(1, *shape) for shape in bedrooms.FEATURES)
    ab = torch.randn(4, 2, 64, 64)
    repeated = tuple(feature.expand(4, *feature.shape[1:]).contiguous() for feature in features)
    found["colors step, 4"] = train_step(colors, ab, repeated), lambda: colors(ab, repeated)
    found["colors, 8 of one"] = _without_grad(lambda: colors.bind(features).inverse(torch.randn(8, 1, 8192))), None
    maps, data = feature_maps(), torch.randn(8, 64, 32, 32)
    found["feature maps step, 8"] = train_step(Unconditional(maps), data, ()), lambda: maps(data)
    one = torch.eye(mnist.CLASSES)[:1]
    found["digits, 64 of one"] = _without_grad(lambda: digits.bind(one).inverse(torch.randn(64, 1, mnist.WIDTH))), None
    return found


def _without_grad(call: Job) -> Job:
    def job() -> object:
        with torch.no_grad():
            return call()

    return job


def run(seconds: float) -> list[dict[str, object]]:
    """Time each work with all kernels, and without each one of them."""
    found: list[dict[str, object]] = []
    for work, (job, call) in works().items():
        jobs: dict[str, Job] = {"all kernels": job}
        for kernel in REPLACED:
            jobs[f"without {kernel}"] = _off(kernel, job)
        made = rows(interleave(jobs, seconds), "all kernels", work=work)
        for row in made if call is not None else ():
            kernel = str(row["contestant"]).removeprefix("without ")
            row["saved_bytes"] = saved_bytes(_off(kernel, call) if kernel in REPLACED else call)  # type: ignore[arg-type]
        found += made
    return found


def _off(kernel: str, job: Job) -> Job:
    def plain() -> object:
        with without(kernel):
            return job()

    return plain


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in run(10.0):
        saved = f"{row['saved_bytes'] / 1024:10,.0f} KiB kept" if "saved_bytes" in row else ""  # type: ignore[operator]
        print(f"{row['work']:22} {row['contestant']:26} {row['minimum'] * 1e3:9.2f} ms {row['ratio']:6.3f} {saved}")  # type: ignore[operator]
