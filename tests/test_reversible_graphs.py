"""Random graphs under every runner: reversible gradients, bound values, compiled values."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from test_bound import both
from test_reversible import agree

import invgraph as ig

calm = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
# torch's own tracing of autograd functions does what it warns of.
tracing = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@calm
@given(ig.testing.graphs())
def test_reversible_gradients_are_those_of_plain_autograd(graph: ig.Graph) -> None:
    if not list(graph.parameters()):
        return
    for inverse in (False, True):
        agree(graph, inverse)
        agree(graph, inverse, anchors=2)


@calm
@given(ig.testing.graphs(conditions=(1, 2)))
def test_bound_values_are_those_of_the_graph(graph: ig.Graph) -> None:
    for inverse in (False, True):
        for sizes in ((3, 2), (4, 1)):
            for ours, theirs in zip(*both(graph, inverse, *sizes), strict=True):
                assert (ours - theirs).abs().max() <= 1e-9 * max(1.0, theirs.abs().max().item())


@tracing
@calm
@given(ig.testing.graphs(dtype=torch.float32))
def test_random_graphs_compile_in_both_directions(graph: ig.Graph) -> None:
    torch._dynamo.reset()
    compiled = copy.deepcopy(graph).compile(backend="eager")
    cs = graph._conditions().pack(tuple(torch.randn(3, *shape) for shape in graph.cond_shapes))
    for inverse in (False, True):
        source = graph._outputs() if inverse else graph._inputs()
        values = source.pack(tuple(torch.randn(3, *shape) for shape in source.shapes))
        with torch.no_grad():
            ours, plain = ((g.inverse if inverse else g)(values, cs) for g in (compiled, graph))
        for left, right in zip(*((*(y if isinstance(y, tuple) else (y,)), d) for y, d in (ours, plain)), strict=True):
            assert (left - right).abs().max() <= 1e-6 * max(1.0, right.abs().max().item())
