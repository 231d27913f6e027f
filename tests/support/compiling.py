"""Graphs for compilers, and comparisons of what they make with eager."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from cases import Case
from torch import Tensor, nn
from torch._dynamo.utils import counters

import invgraph as ig

COMPILER = any(map(shutil.which, ("g++", "clang++", "c++")))

# torch's own tracing of autograd functions, and the first import of inductor, do what they warn of.
COMPILERS_WARN = [
    # torch looks at the gradient of a loss that a compiled step returns.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check:FutureWarning"),
    # With a batch that varies torch takes equal sizes for different ones, and compiles a region's gradient twice.
    pytest.mark.filterwarnings("ignore:invoke_subgraph traced multiple backward graphs:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def in_a_graph(case: Case, dtype: torch.dtype) -> ig.Graph:
    module = case.build(dtype)
    xs = [ig.InputNode(*shape, name=f"x{i}") for i, shape in enumerate(module.in_shapes)]
    cs = [ig.ConditionNode(*shape, name=f"c{i}") for i, shape in enumerate(module.cond_shapes)]
    return ig.Graph(xs, list(ig.Node(xs, module, conditions=cs, name="layer")), cs)


def worst(ours: tuple[tuple[Tensor, ...], Tensor], theirs: tuple[tuple[Tensor, ...], Tensor]) -> float:
    pairs = zip((*ours[0], ours[1]), (*theirs[0], theirs[1]), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs)


def negative(value: tuple[Tensor, Tensor]) -> Tensor:
    z, log_det = value
    return 0.5 * z.square().sum(1).mean() - log_det.mean()


def assert_same_gradients(ours: list[Tensor], theirs: list[Tensor]) -> None:
    (loss, *found), (expected, *exact) = ours, theirs
    assert (loss - expected).abs() <= 1e-5 * expected.abs().clamp_min(1)
    whole, wanted = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (found, exact))
    assert (whole - wanted).norm() <= 1e-5 * wanted.norm()


class Holder(nn.Module):
    """A module of a user's that holds a flow."""

    def __init__(self, flow: ig.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.flow.log_prob(x, c)
