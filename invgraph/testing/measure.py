"""Measurements of each node: round trip, log-det against autograd, amplification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.core.wrappers import Inverse
from invgraph.graph.graph import Graph
from invgraph.numerics.seeding import generator, normal
from invgraph.shapes import Tensors, numel
from invgraph.testing.checks import round_trip
from invgraph.testing.report import NodeReport
from invgraph.testing.subject import Direction, Subject, gap, jacobian


def parts(subject: Subject) -> list[tuple[str, Subject]]:
    """Return the nodes of a graph and its nested graphs, each with the data it receives in a forward pass."""
    module, xs = subject.module, subject.xs
    if isinstance(module, Inverse):
        with torch.no_grad():
            xs, _ = subject.directions[0].run()
        module = module.module
    if not isinstance(module, Graph):
        return []
    graph = module
    named = {layer: name for name, layer in _layers(graph, "")}
    found: dict[nn.Module, tuple[Tensors, Tensors, Tensors]] = {}

    def record(layer: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        values, conditions = arguments
        found[layer] = _copied(values), _copied(result[0]), _copied(conditions)

    hooks = [layer.register_forward_hook(record) for layer in named]
    try:
        with torch.no_grad():
            graph(graph._inputs().pack(xs), graph._conditions().pack(subject.cs))
    finally:
        for hook in hooks:
            hook.remove()
    return [(named[layer], Subject(layer, *found[layer], subject.limits)) for layer in named]


def _copied(values: Tensors) -> Tensors:
    return tuple(value.detach().clone() for value in values)


def _layers(graph: Graph, prefix: str) -> Iterator[tuple[str, Invertible]]:
    """Iterate over the invertible nodes and their names, ``outer.inner`` in nested graphs, inner ones first."""
    for name, layer in graph.layers.items():
        if isinstance(layer, Graph):
            yield from _layers(layer, f"{prefix}{name}.")
        if isinstance(layer, Invertible):
            yield f"{prefix}{name}", layer


def measure(name: str, subject: Subject, max_dims: int) -> NodeReport:
    """Return the row of a node.

    Raises:
        ContractError: If a log-det is not that of the Jacobian.
    """
    module = subject.module
    dims = numel(module.in_shapes)
    error: float | None = None
    if dims <= max_dims:
        error = max(_log_det_error(subject, direction) for direction in subject.directions)
        singular = torch.linalg.svdvals(jacobian(subject.directions[0]).detach().double())
        amplification = (1 / singular.min()).item()
    else:
        amplification = _estimate_amplification(subject.directions[1])
    exact = max(round_trip(direction) for direction in subject.directions)
    return NodeReport(name, type(module).__name__, dims, exact, error, amplification)


def _log_det_error(subject: Subject, direction: Direction) -> float:
    with torch.no_grad():
        _, log_det = direction.run()
    exact = torch.linalg.slogdet(jacobian(direction).detach().double()).logabsdet
    error = gap((log_det.double(),), (exact,))
    if not error <= subject.limits.log_det:
        given = f"{direction.label}: log_det {log_det[0].item():.6g}, by autograd {exact[0].item():.6g}"
        raise subject.fail(given, f"they differ by {error:.1e}, more than {subject.limits.log_det:.0e}")
    return error


@torch.no_grad()
def _estimate_amplification(inverse: Direction, directions: int = 4) -> float:
    """Return a lower bound on how much the inverse amplifies small errors of its inputs, from random ones."""
    values, conditions = inverse.values, inverse.conditions
    source = generator(0)
    exact, _ = inverse.run()
    step = torch.finfo(values[0].dtype).eps ** 0.5
    worst = 0.0
    for _ in range(directions):
        noise = [normal(v.shape, source).to(v) * step for v in values]
        moved, _ = inverse.call(tuple(v + n for v, n in zip(values, noise, strict=True)), conditions)
        there = torch.cat([(m - e).flatten(1) for m, e in zip(moved, exact, strict=True)], dim=1).norm(dim=1)
        start = torch.cat([n.flatten(1) for n in noise], dim=1).norm(dim=1)
        worst = max(worst, (there / start).max().item())
    return worst
