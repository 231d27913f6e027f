"""Autocast: subnets in half precision, transforms and log-determinants in the data's dtype, both ways alike."""

from __future__ import annotations

import pytest
import torch
from cases import Case, each_part
from small_graphs import MLP, deep_graph
from torch import Tensor, nn

import invgraph as ig


class Seen(nn.Linear):
    """Notes the dtype of what it returns."""

    dtypes: list[torch.dtype] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not y.is_meta:
            self.dtypes.append(y.dtype)
        return y


def trained(depth: int, steps: int) -> tuple[ig.Graph, Tensor, Tensor]:
    """A model after some training on correlated data, its data and conditions."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        graph = deep_graph(depth, width=16, subnet=ig.nets.MLP(hidden=64))
    mixing = torch.randn(16, 16, generator=generator) / 4
    c = torch.randn(256, 3, generator=generator)
    x = torch.tanh(torch.randn(256, 16, generator=generator) @ mixing) + 0.3 * c.sum(1, keepdim=True)
    x = x + 0.05 * torch.randn(256, 16, generator=generator)
    optimizer = torch.optim.Adam(graph.parameters(), lr=1e-3)
    for _ in range(steps):
        z, log_det = graph(x, c)
        loss = (z.square().sum(1) / 2 - log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(graph.parameters(), 10.0)
        optimizer.step()
    return graph, x, c


def test_the_round_trip_of_a_trained_deep_model() -> None:
    graph, x, c = trained(24, steps=25)
    start = deep_graph(24, width=16)(x, c)[0].square().mean()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = graph(x, c)
        back, inverse_log_det = graph.inverse(z, c)
    assert z.square().mean() != start, "training changed nothing"
    assert (back - x).abs().max() <= 1e-2
    assert (log_det + inverse_log_det).abs().max() <= 1e-1
    assert {z.dtype, log_det.dtype, back.dtype, inverse_log_det.dtype} == {torch.float32}


def test_learned_rotations_stay_orthogonal_under_autocast() -> None:
    """They are products and exponentials of parameters, which autocast would round to three digits."""
    x = ig.InputNode(8, name="x")
    h = x
    for _ in range(8):
        h = ig.Node(h, ig.AllInOne, {"subnet": ig.nets.MLP(16), "householder": 8})
        h = ig.Node(ig.Node(h, ig.OrthogonalLinear), ig.Householder, {"reflections": 8})
    graph = ig.testing.randomize(ig.Graph(x, h), scale=0.1).eval()
    data = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        back, _ = graph.inverse(graph(data)[0])
    error = (back - data).abs()
    assert error.median() <= 1e-5
    assert error.max() <= 5e-3  # on the way back, a number that a subnet reads may round to its neighbor


def test_subnets_run_in_half_precision_and_transforms_do_not() -> None:
    Seen.dtypes.clear()
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    told = ig.FeatureNode(c, Seen, {"in_features": 3, "out_features": 5}, name="told")
    args = {"transform": ig.Affine(), "subnet": Seen}
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=told, name="coupling"), c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for direction in (graph, graph.inverse):
            y, log_det = direction(torch.randn(2, 4), torch.randn(2, 3))
            assert (y.dtype, log_det.dtype) == (torch.float32, torch.float32)
    assert set(Seen.dtypes) == {torch.bfloat16}


def test_float64_stays_float64_without_autocast() -> None:
    graph = deep_graph(2, subnet=MLP).double()
    y, log_det = graph(torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64))
    assert (y.dtype, log_det.dtype) == (torch.float64, torch.float64)


def test_a_bound_graph_under_autocast() -> None:
    graph, x, c = trained(4, steps=10)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        bound = graph.bind(c)
        z, _ = bound(x.unsqueeze(0))
        back, _ = bound.inverse(z)
    assert z.dtype == torch.float32
    assert (back - x).abs().max() <= 1e-2


@pytest.mark.parametrize("case", each_part())
def test_every_layer_runs_under_autocast_in_the_datas_dtype(case: Case) -> None:
    """Subnets may round to half precision, but the two directions round alike."""
    module = case.build(torch.float32).eval()
    xs, cs = case.data(module, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        ys, log_det = module(xs, cs)
        back, inverse_log_det = module.inverse(ys, cs)
    assert {t.dtype for t in (*ys, log_det, *back, inverse_log_det)} == {torch.float32}
    if "round_trip" not in case.without:
        assert max((a - b).abs().max().item() for a, b in zip(back, xs, strict=True)) <= 0.1


def test_features_come_in_the_datas_dtype() -> None:
    """A layer that computes in its own precision reads them, where nothing is cast any more."""
    x, c = ig.InputNode(3, name="x"), ig.ConditionNode(2, name="c")
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 2, "out_features": 4})
    graph = ig.Graph(x, ig.Node(x, ig.Residual, {"hidden": 4}, conditions=feature), c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, _ = graph(torch.randn(5, 3), torch.randn(5, 2))
    assert z.dtype == torch.float32
