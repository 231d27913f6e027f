"""Versions and a self-check, to paste into a bug report: ``python -m invgraph``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import invgraph as ig

_REQUIRED = ("numpy", "networkx", "safetensors")
_OPTIONAL = ("matplotlib", "torchdiffeq", "onnx", "onnxscript", "pyro-ppl", "FrEIA")


def versions() -> list[tuple[str, str]]:
    """Return what a bug report should say about the machine and its packages."""
    torch_ = f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    device = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "none"
    found = [("invgraph", f"{ig.__version__} in {Path(ig.__file__).parent}"), ("torch", torch_), ("GPU", device)]
    found += [("python", platform.python_version()), ("system", f"{platform.system()} {platform.machine()}")]
    for name in (*_REQUIRED, *_OPTIONAL):
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if name in _REQUIRED:
                found.append((name, "MISSING"))
    return found


def build() -> ig.Graph:
    """Return a small graph with a bit of everything: wavelets, a split, features, and a value as condition."""
    x, c = ig.InputNode(2, 4, 4, name="x"), ig.ConditionNode(3, name="c")
    features = ig.FeatureNode(c, torch.nn.Linear, {"in_features": 3, "out_features": 5}, name="features")
    affine = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(4)}
    h = ig.Node(ig.Node(x, ig.Haar, {"rebalance": 0.5}), ig.Coupling, affine, conditions=features)
    first, second = ig.Node(ig.Node(h, ig.Orthogonal), ig.Split, {"sizes": (2, 6)})
    spline = {"transform": ig.RationalQuadraticSpline(bins=4), "subnet": ig.nets.ConvNet(4)}
    second = ig.Node(second, ig.Elementwise, spline, conditions=(first, features))[0]
    graph = ig.Graph(x, ig.Node([first, second], ig.Concat), c).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return graph


def _data(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x, torch.randn(batch, 3, generator=generator, dtype=torch.float64)


def _size(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


def round_trip(graph: ig.Graph) -> float:
    """Return the largest error of the inverse after the forward, and of the sum of both log-determinants."""
    x, c = _data(5)
    z, log_det = graph(x, c)
    back, opposite = graph.inverse(z, c)
    return max(_size(back - x), _size(log_det + opposite))


def log_det(graph: ig.Graph) -> float:
    """Return the error of the log-determinant against the autograd Jacobian."""
    x, c = _data(1)
    jacobian = torch.autograd.functional.jacobian(lambda value: graph(value, c)[0], x)
    exact = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
    return _size(graph(x, c)[1] - exact)


def gradient(graph: ig.Graph) -> float:
    """Return the difference between the gradients of the plain and of the reversible run."""
    x, c = _data(5)
    parameters = list(graph.parameters())
    grads = [
        torch.autograd.grad(z.square().sum() - log_det.sum(), parameters)
        for z, log_det in (graph(x, c), ig.reversible(graph)(x, c))
    ]
    return max(_size(a - b) for a, b in zip(*grads, strict=True))


def checkpoint(graph: ig.Graph) -> float:
    """Return the difference between a graph and the one that loads its checkpoint."""
    x, c = _data(5)
    other = build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.safetensors")
        ig.save(path, graph)
        ig.load(path, other)
    return _size(graph(x, c)[0] - other(x, c)[0])


CHECKS: tuple[tuple[str, Callable[[ig.Graph], float], float], ...] = (
    ("round trip", round_trip, 1e-10),
    ("log-determinant against autograd", log_det, 1e-9),
    ("gradient of the reversible run", gradient, 1e-8),
    ("checkpoint", checkpoint, 0.0),
)


def main(arguments: Sequence[str] = ()) -> int:
    """Print versions and checks; return 1 if a check fails."""
    argparse.ArgumentParser(prog="python -m invgraph", description=__doc__).parse_args(arguments)
    for name, version in versions():
        print(f"{name:<12} {version}")
    began = time.perf_counter()
    failed = 0
    graph = build()
    for name, check, bound in CHECKS:
        try:
            error = check(graph)
            good, found = error <= bound, f"error {error:.1e}, allowed {bound:.0e}"
        except Exception as error:  # a report is wanted, whatever the failure
            good, found = False, f"{type(error).__name__}: {error}"
        print(f"{'ok' if good else 'FAILED':<12} {name}: {found}")
        failed += not good
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed in {time.perf_counter() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
