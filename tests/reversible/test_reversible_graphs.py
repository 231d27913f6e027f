"""Random graphs under every runner: reversible gradients, bound values, compiled values."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from small_graphs import agree, both

import invgraph as ig
from invgraph.testing import randomize

calm = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
# torch's own tracing of autograd functions does what it warns of.
tracing = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


twenty = settings(calm, max_examples=20)


@twenty
@given(ig.testing.graphs())
def test_reversible_gradients_are_those_of_plain_autograd(graph: ig.Graph) -> None:
    reversible_gradients_agree(graph)


@pytest.mark.slow
@calm
@given(ig.testing.graphs())
def test_reversible_gradients_of_more_graphs(graph: ig.Graph) -> None:
    reversible_gradients_agree(graph)


def reversible_gradients_agree(graph: ig.Graph) -> None:
    if not list(graph.parameters()):
        return
    for inverse in (False, True):
        agree(graph, inverse)
        agree(graph, inverse, anchors=2)


@twenty
@given(ig.testing.graphs(conditions=(1, 2)))
def test_bound_values_are_those_of_the_graph(graph: ig.Graph) -> None:
    bound_values_agree(graph)


@pytest.mark.slow
@calm
@given(ig.testing.graphs(conditions=(1, 2)))
def test_bound_values_of_more_graphs(graph: ig.Graph) -> None:
    bound_values_agree(graph)


def bound_values_agree(graph: ig.Graph) -> None:
    for inverse in (False, True):
        for sizes in ((3, 2), (4, 1)):
            for ours, theirs in zip(*both(graph, inverse, *sizes), strict=True):
                assert (ours - theirs).abs().max() <= 1e-9 * max(1.0, theirs.abs().max().item())


@pytest.mark.slow
@tracing
@settings(calm, max_examples=3)
@given(ig.testing.graphs(max_nodes=4))
def test_random_graphs_compile_in_both_directions(graph: ig.Graph) -> None:
    compiles(graph)


@tracing
@pytest.mark.nightly
@calm
@given(ig.testing.graphs())
def test_larger_random_graphs_compile_in_both_directions(graph: ig.Graph) -> None:
    compiles(graph)


@tracing
@pytest.mark.nightly
@settings(calm, max_examples=200, derandomize=False, print_blob=True)
@given(ig.testing.graphs())
def test_two_hundred_random_graphs_compile_in_both_directions(graph: ig.Graph) -> None:
    compiles(graph)


def compiles(graph: ig.Graph) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    compiled = copy.deepcopy(graph).compile(backend="eager")
    cs = graph._conditions().pack(tuple(torch.randn(3, *shape, dtype=torch.float64) for shape in graph.cond_shapes))
    for inverse in (False, True):
        source = graph._outputs() if inverse else graph._inputs()
        values = source.pack(tuple(torch.randn(3, *shape, dtype=torch.float64) for shape in source.shapes))
        with torch.no_grad():
            ours = (compiled.inverse if inverse else compiled)(values, cs)
        # With gradients: without, a graph takes quicker ways to numbers that are the same up to rounding.
        plain = (graph.inverse if inverse else graph)(values, cs)
        for left, right in zip(*((*(y if isinstance(y, tuple) else (y,)), d) for y, d in (ours, plain)), strict=True):
            assert (left - right).abs().max() <= 1e-9 * max(1.0, right.abs().max().item())


@pytest.mark.parametrize("inverse", [False, True])
def test_a_compiled_coupling_may_be_given_the_other_part_of_a_split(inverse: bool) -> None:
    """The parts are views of one tensor: of a split's input forward, of a concat's output in the inverse."""
    x = ig.InputNode(4, name="x")
    a, b = ig.Node(x, ig.Split, {"sizes": (2, 2)}, name="split")
    b = ig.Node(b, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=4)}, conditions=a, name="mix")
    graph = randomize(ig.Graph(x, ig.Node((a, b), ig.Concat, name="join")))
    torch._dynamo.reset()
    compiled = copy.deepcopy(graph).compile(backend="eager")
    values = torch.randn(3, 4)
    with torch.no_grad():  # with gradients there are no regions under this backend
        for ours, plain in zip(*((g.inverse if inverse else g)(values) for g in (compiled, graph)), strict=True):
            assert torch.allclose(ours, plain)
