"""Graphs inside what a user compiles: no regions, the results of eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import Case, each_kind
from compiling import COMPILER, COMPILERS_WARN, Holder, assert_same_gradients, in_a_graph, negative
from compiling import fresh as fresh
from small_graphs import build, deep_graph
from torch import Tensor

import invgraph as ig
import invgraph.graph.compiled

pytestmark = COMPILERS_WARN


def train_step(flow: ig.Flow, x: Tensor, c: Tensor) -> Tensor:
    loss = flow.loss(x, c)
    loss.backward()
    return loss


ENTRANCES: dict[str, Callable[[ig.Flow, dict[str, Any]], Callable[[Tensor, Tensor], Tensor]]] = {
    "graph": lambda flow, how: lambda x, c: negative(torch.compile(flow.graph, **how)(x, c)),
    "inverse": lambda flow, how: lambda x, c: negative(torch.compile(ig.Inverse(flow.graph), **how)(x, c)),
    "flow": lambda flow, how: lambda x, c: -torch.compile(flow, **how)(x, c).mean(),
    "loss": lambda flow, how: torch.compile(flow.loss, **how),
    "flow.compile": lambda flow, how: lambda x, c: -flow_compiled(flow, how)(x, c).mean(),
    "holder": lambda flow, how: lambda x, c: -torch.compile(Holder(flow), **how)(x, c).mean(),
    "compiled twice": lambda flow, how: lambda x, c: -torch.compile(graph_compiled(flow, how), **how)(x, c).mean(),
}


"""Ways to compile from outside, by name: each gives a function of data and conditions that returns the loss."""


def flow_compiled(flow: ig.Flow, how: dict[str, Any]) -> ig.Flow:
    flow.compile(**how)
    return flow


def graph_compiled(flow: ig.Flow, how: dict[str, Any]) -> ig.Flow:
    flow.graph.compile(**how)
    return flow


def gradients_from(entrance: str, backend: Any, depth: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and gradients, compiled through this entrance, and eager."""
    graph = build(lambda: deep_graph(depth, width=4), torch.float32)
    generator = torch.Generator().manual_seed(0)
    x, c = (torch.randn(5, n, generator=generator) for n in (4, 3))
    found = []
    for flow, how in ((ig.Flow(copy.deepcopy(graph)), {"backend": backend}), (ig.Flow(graph), {"backend": "eager"})):
        run = ENTRANCES[entrance](flow, how) if flow.graph is not graph else _eager(entrance, flow)
        loss = run(x, c)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(flow.parameters()))])
    return found[0], found[1]


def _eager(entrance: str, flow: ig.Flow) -> Callable[[Tensor, Tensor], Tensor]:
    if entrance == "graph":
        return lambda x, c: negative(flow.graph(x, c))
    if entrance == "inverse":
        return lambda x, c: negative(flow.graph.inverse(x, c))
    return flow.loss if entrance == "loss" else lambda x, c: -flow(x, c).mean()


SOME_ENTRANCES = pytest.mark.parametrize(
    "entrance", [name if name == "flow" else pytest.param(name, marks=pytest.mark.slow) for name in ENTRANCES]
)


@pytest.mark.skipif(not COMPILER, reason="inductor needs a compiler")
@pytest.mark.parametrize(
    "entrance", [pytest.param(n, marks=pytest.mark.slow if n == "loss" else pytest.mark.nightly) for n in ENTRANCES]
)
def test_compiled_from_outside_the_gradients_are_eagers(entrance: str) -> None:
    """Graph.compile tells inductor not to reuse memory that regions keep views of; nobody tells it from outside."""
    assert_same_gradients(*gradients_from(entrance, "inductor"))


@SOME_ENTRANCES
def test_compiled_from_outside_there_are_no_regions(entrance: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    assert_same_gradients(*gradients_from(entrance, keep, depth=2))
    assert graphs
    assert not any("subgraph" in name for graph in graphs for name, _ in graph.named_children())


@pytest.mark.skipif(not COMPILER, reason="inductor needs a compiler")
@pytest.mark.slow
def test_a_compiled_training_step_gives_eagers_gradients() -> None:
    graph = build(lambda: deep_graph(3, width=4), torch.float32)
    compiled, eager = ig.Flow(copy.deepcopy(graph)), ig.Flow(graph)
    generator = torch.Generator().manual_seed(0)
    x, c = (torch.randn(5, n, generator=generator) for n in (4, 3))
    found = [run(flow, x, c) for run, flow in ((torch.compile(train_step), compiled), (train_step, eager))]
    gradients = [[p.grad for p in flow.parameters() if p.grad is not None] for flow in (compiled, eager)]
    assert_same_gradients([found[0].detach(), *gradients[0]], [found[1].detach(), *gradients[1]])


@pytest.mark.nightly
@pytest.mark.parametrize("case", each_kind())
def test_every_layer_compiled_from_outside_trains_as_eager(case: Case) -> None:
    """Two of each layer in a row, so that what one returns is memory that the compiler might reuse."""
    eager = in_a_graph(case, torch.float32)
    for module, values in ((eager, case.data), (ig.Inverse(eager), case.latents)):
        xs, cs = values(eager, torch.float32)
        found = []
        for run in (torch.compile(copy.deepcopy(module)), module):
            ys, log_det = run(xs, cs)
            wanted = [p for p in run.parameters() if p.requires_grad]
            loss = sum(y.square().sum() for y in ys) + log_det.sum()
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted and loss.requires_grad else ()
            found.append([loss.detach(), *(g for g in gradients if g is not None), torch.ones(1)])
        assert_same_gradients(*found)
