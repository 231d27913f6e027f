"""Samples and densities in chunks: the same numbers, in little memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measures import draw, gap
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import invgraph as ig
from tests.benchmarks.field import peak_bytes
from tests.benchmarks.sampling import stated_bytes

AFFINE = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=16)}


def build(conditional: bool, dims: int = 4, **args: Any) -> ig.Flow:
    x, c = ig.InputNode(dims, name="x"), ig.ConditionNode(3, name="c")
    h = ig.chain(x, *[(ig.Coupling, AFFINE | args)] * 2, conditions=c if conditional else ())
    return ig.Flow(ig.testing.randomize(ig.Graph(x, h, c if conditional else ()).double(), 1, scale=0.8))


def heights(flow: ig.Flow) -> list[int]:
    """Record the rows of each later call of the first layer."""
    rows: list[int] = []
    flow.graph[next(iter(flow.graph.layers))].register_forward_hook(lambda *args: rows.append(len(args[2][1])))
    return rows


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 12, 1000])
@pytest.mark.parametrize("conditional", [False, True])
def test_chunks_do_not_change_samples_and_densities(conditional: bool, chunk: int, gradients: bool) -> None:
    flow, cs = build(conditional), draw([(3,)], 5, seed=1) if conditional else ()
    c: Any = cs[0] if conditional else ()
    found = []
    for size in (None, chunk):
        with torch.set_grad_enabled(gradients):
            x, log_prob = flow.rsample_and_log_prob(7, c, generator=torch.Generator().manual_seed(0), chunk=size)
            y = flow.sample(7, c, generator=torch.Generator().manual_seed(0), chunk=size)
            (data,), (given,) = draw([(4,)], 9, seed=2), draw([(3,)], 9, seed=3)
            found.append((x, log_prob, y, flow.log_prob(data, given if conditional else (), chunk=size)))
    assert gap(*found) <= 1e-12


def test_no_more_rows_than_a_chunk_go_through_at_once() -> None:
    flow, (c,) = build(conditional=True), draw([(3,)], 10, seed=1)
    rows = heights(flow)
    for call in (lambda chunk: flow.log_prob(torch.zeros(7, 10, 4).double(), c, chunk=chunk),
                 lambda chunk: flow.log_prob(torch.zeros(70, 4).double(), c.repeat(7, 1), chunk=chunk)):  # fmt: skip
        for chunk in (20, 25, 1000):
            rows.clear()
            call(chunk)
            assert max(rows) <= chunk
            assert sum(rows) == 70
    assert max(rows) == 70


class Peak(TorchDispatchMode):
    """Largest size of one result, in elements."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.most = max(self.most, value.numel())
        return result


def test_many_samples_of_many_observations_stay_within_the_stated_memory() -> None:
    """No tensor but latents and samples is larger than a chunk of the widest layer, here 16 units."""
    flow, (c,) = build(conditional=True), draw([(3,)], 500, seed=1)
    for chunk in (100, 1000):
        with Peak() as peak:
            flow.sample(40, c, chunk=chunk)
        assert peak.most == 40 * 500 * 4
    with Peak() as peak:
        flow.sample(40, c, chunk=20_000)
    assert peak.most == 20_000 * 16


@pytest.mark.parametrize("transform", [ig.Affine(), ig.RationalQuadraticSpline()], ids=str)
def test_samples_in_chunks_take_no_more_memory_than_is_stated(transform: Any) -> None:
    x, c = ig.InputNode(5, name="x"), ig.ConditionNode(3, name="c")
    layer = (ig.Coupling, {"transform": transform, "subnet": ig.nets.MLP(hidden=64, layers=2)})
    flow = ig.Flow(ig.Graph(x, ig.chain(x, layer, layer, conditions=c), c))
    peak = peak_bytes(lambda: flow.sample(400, torch.zeros(50, 3), chunk=1000), "cpu")
    assert peak <= stated_bytes(flow, 400, 50, 1000)


def test_what_depends_on_all_rows_is_not_cut() -> None:
    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, 8), nn.BatchNorm1d(8), nn.Linear(8, channels_out))

    flow, (c,) = build(conditional=True, subnet=subnet), draw([(3,)], 5)
    for call in (lambda: flow.sample(7, c, chunk=10), lambda: flow.log_prob(torch.zeros(5, 4).double(), c, chunk=2),
                 lambda: flow.bind(c).sample(7, chunk=5)):  # fmt: skip
        with pytest.raises(ig.GraphError, match="batch statistics"):
            call()
    flow.sample(7, c, chunk=35)
    flow.eval().sample(7, c, chunk=10)
    for chunk in (0, -1):
        with pytest.raises(ig.GraphError, match="chunk must be at least 1"):
            flow.sample(7, c, chunk=chunk)
    with pytest.raises(ig.ArgumentError, match="chunk"):
        flow.sample(7, c, chunk=2.5)  # type: ignore[arg-type]
