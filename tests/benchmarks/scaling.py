"""Growth of costs: with depth, channels and nodes; compiling, importing."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

import invgraph as ig
from tests.benchmarks import mnist
from tests.benchmarks.timing import interleave, rows, saved_bytes, train_step

DEPTHS = (4, 16, 64, 256)
NODES = (10, 100, 1000, 10000)


def depth(seconds: float) -> list[dict[str, object]]:
    """Saved activations and train steps over depth, plain and reversible."""
    found: list[dict[str, object]] = []
    x, c = torch.randn(64, 64), torch.randn(64, mnist.CLASSES)
    for blocks in DEPTHS:
        models: dict[str, Any] = {"invgraph": mnist.graph(blocks, 64, 128)}
        models["invgraph reversible"] = ig.reversible(mnist.graph(blocks, 64, 128))
        timed = rows(
            interleave({n: train_step(m, x, c) for n, m in models.items()}, seconds / len(DEPTHS), 3), "invgraph"
        )
        for row in timed:
            model = models[str(row["contestant"])]
            row.update(work="depth", depth=blocks, saved_bytes=saved_bytes(lambda model=model: model(x, c)))
        memory = _memcnn(blocks)
        if memory is not None:
            timed.append(
                {"work": "depth", "depth": blocks, "contestant": "memcnn (no condition, no log-det)", **memory}
            )
        found += timed
    return found


def _memcnn(blocks: int) -> dict[str, object] | None:
    try:
        import memcnn
    except ImportError as error:
        print(f"  memcnn: not installed ({error})")
        return None
    layers = [
        memcnn.InvertibleModuleWrapper(
            memcnn.AdditiveCoupling(mnist._mlp(32, 32, 128), mnist._mlp(32, 32, 128)), keep_input=False
        )
        for _ in range(blocks)
    ]
    model = torch.nn.Sequential(*layers)
    times = []
    for _ in range(4):
        x = torch.randn(64, 64, requires_grad=True)
        start = time.perf_counter()
        model(x * 1).square().sum().backward()
        times.append(time.perf_counter() - start)
    return {"minimum": min(times[1:]), "median": sorted(times[1:])[1], "rounds": 3}


def channels(seconds: float) -> list[dict[str, object]]:
    """A train step over the number of channels, at batch 64."""
    found: list[dict[str, object]] = []
    widths = (16, 64, 256, 1024)
    for width in widths:
        x, c = torch.randn(64, width), torch.randn(64, mnist.CLASSES)
        jobs = {
            "floor": mnist.Products(64, 8, width, 256).train,
            "invgraph": train_step(mnist.graph(8, width, 256), x, c),
            "straight": train_step(mnist.Straight(8, width, 256), x, c),
        }
        found += rows(interleave(jobs, seconds / len(widths)), "floor", work="channels", channels=width)
    return found


def build() -> list[dict[str, object]]:
    """Declaring, building and copying graphs of layers without subnets."""
    found: list[dict[str, object]] = []
    for nodes in NODES:
        times: dict[str, list[float]] = {"build": [], "deepcopy": []}
        for _ in range(3):
            start = time.perf_counter()
            h: Any = ig.InputNode(8, name="x")
            x = h
            for k in range(nodes):
                h = ig.Node(h, ig.Permute, {"seed": k})
            graph = ig.Graph(x, h)
            middle = time.perf_counter()
            copy.deepcopy(graph)
            times["build"].append(middle - start)
            times["deepcopy"].append(time.perf_counter() - middle)
        for what, own in times.items():
            told = {"minimum": min(own), "median": sorted(own)[1], "rounds": 3, "per_node": min(own) / nodes}
            found.append({"work": what, "nodes": nodes, "contestant": "invgraph", **told})
        if nodes <= 1000:
            found += _freia_build(nodes)
    return found


def _freia_build(nodes: int) -> list[dict[str, object]]:
    try:
        import FrEIA.framework as ff
        import FrEIA.modules as fm
    except ImportError:
        return []
    start = time.perf_counter()
    chain: list[Any] = [ff.InputNode(8)]
    for k in range(nodes):
        chain.append(ff.Node(chain[-1], fm.PermuteRandom, {"seed": k}))
    graph = ff.GraphINN([*chain, ff.OutputNode(chain[-1])])
    middle = time.perf_counter()
    found: list[dict[str, object]] = [
        {"work": "build", "nodes": nodes, "contestant": "FrEIA", "minimum": middle - start, "rounds": 1}
    ]
    try:
        copy.deepcopy(graph)
        told: dict[str, object] = {"minimum": time.perf_counter() - middle}
    except RecursionError:
        told = {"failed": "RecursionError"}
    return [*found, {"work": "deepcopy", "nodes": nodes, "contestant": "FrEIA", "rounds": 1, **told}]


def imports(rounds: int = 7) -> list[dict[str, object]]:
    """``import invgraph`` against ``import torch``, each in a new process, in turns."""
    times: dict[str, list[float]] = {"torch": [], "invgraph": []}
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as cache:
        # From bytecode, as an installed package is imported, also where writing it beside the source is forbidden.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for _ in range(rounds + 1):
            for name, own in times.items():
                command = [sys.executable, "-c", code.format(name)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                own.append(float(done.stdout))
    base = min(times["torch"][1:])
    return [
        {"work": "import", "contestant": name, "minimum": min(own[1:]), "median": sorted(own[1:])[rounds // 2],
         "rounds": rounds, "ratio": min(own[1:]) / base, "to": "torch"}
        for name, own in times.items()
    ]  # fmt: skip


_COMPILE = """
import sys, time, torch
torch.set_num_threads(1)
from tests.benchmarks import mnist
if sys.argv[2] == "started":
    torch.compile(lambda x: x.sin().sum())(torch.randn(3, requires_grad=True)).backward()
graph = mnist.graph(int(sys.argv[1])).compile()
x, c = torch.randn(16, 784), torch.zeros(16, 10)
start = time.perf_counter()
z, log_det = graph(x, c)
(z.square().sum() - log_det.sum()).backward()
print(time.perf_counter() - start)
"""


def compiling() -> list[dict[str, object]]:
    """The first train step of a compiled graph of 2 and of 24 blocks, in new processes with empty caches.

    Cold, it starts the compiler, as the first compilation on a machine does; else another one has started it.
    """
    found: list[dict[str, object]] = []
    for state in ("cold", "started"):
        times: dict[int, float] = {}
        for blocks in (2, 24):
            with tempfile.TemporaryDirectory() as folder:
                environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
                command = [sys.executable, "-c", _COMPILE, str(blocks), state]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            times[blocks] = float(done.stdout.split()[-1])
        found += [
            {"work": f"compile, {state}", "contestant": "invgraph compiled", "depth": blocks, "minimum": seconds,
             "ratio": seconds / times[2], "to": "2 blocks"}
            for blocks, seconds in times.items()
        ]  # fmt: skip
    return found
