"""The public checks catch each way of breaking the contract, and say where."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph import ContractError
from invgraph.testing import check_invertible


class Scaled(ig.Invertible):
    """A correct layer, y = 3 x, whose faulty children change one thing each."""

    def __init__(self, in_shapes: Any = (4,), cond_shapes: Any = ()) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.log_scale = nn.Parameter(torch.tensor(math.log(3.0), dtype=torch.float64))

    @property
    def out_shapes(self) -> Any:
        return self.in_shapes

    def log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale * math.prod(self.in_shapes[0])).expand(len(x))

    def _forward(self, xs: Any, cs: Any) -> Any:
        return (xs[0] * self.log_scale.exp(),), self.log_det(xs[0])

    def _inverse(self, ys: Any, cs: Any) -> Any:
        return (ys[0] * torch.exp(-self.log_scale),), -self.log_det(ys[0])


class InexactInverse(Scaled):
    def _inverse(self, ys: Any, cs: Any) -> Any:
        return (ys[0] / 3.001,), -self.log_det(ys[0])


class WrongLogDet(Scaled):
    def log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale * 3).expand(len(x))


class LogDetOfTheForward(Scaled):
    def _inverse(self, ys: Any, cs: Any) -> Any:
        return (ys[0] * torch.exp(-self.log_scale),), self.log_det(ys[0])


class ChangesItsInput(Scaled):
    def _forward(self, xs: Any, cs: Any) -> Any:
        xs[0].mul_(3)
        return (xs[0].clone() + 0 * self.log_scale,), self.log_det(xs[0])


class TouchesItsInput(Scaled):
    """Changes it and changes it back: the values are the same, the version is not."""

    def _inverse(self, ys: Any, cs: Any) -> Any:
        ys[0].add_(0)
        return super()._inverse(ys, cs)


class DrawsFromTorch(Scaled):
    def _forward(self, xs: Any, cs: Any) -> Any:
        torch.rand(())
        return super()._forward(xs, cs)


class DrawsFromNumpy(Scaled):
    def _inverse(self, ys: Any, cs: Any) -> Any:
        np.random.rand()
        return super()._inverse(ys, cs)


class DrawsFromRandom(Scaled):
    def _forward(self, xs: Any, cs: Any) -> Any:
        random.random()
        return super()._forward(xs, cs)


class Counts(Scaled):
    calls = 0

    def _forward(self, xs: Any, cs: Any) -> Any:
        self.calls += 1
        return (xs[0] * self.log_scale.exp() + self.calls,), self.log_det(xs[0])


class MixesRows(Scaled):
    def _forward(self, xs: Any, cs: Any) -> Any:
        ys, log_det = super()._forward(xs, cs)
        return (ys[0] + 1e-3 * xs[0].detach().sum(),), log_det

    def _inverse(self, ys: Any, cs: Any) -> Any:
        batch = len(ys[0])
        total = ys[0].detach().sum() / (3 + 4e-3 * batch)
        return super()._inverse((ys[0] - 1e-3 * total,), cs)


class Detached(Scaled):
    def _inverse(self, ys: Any, cs: Any) -> Any:
        (x,), log_det = super()._inverse(ys, cs)
        return (x.detach(),), log_det.detach()


class NotFinite(Scaled):
    def log_det(self, x: Tensor) -> Tensor:
        zero = (self.log_scale - self.log_scale).abs().sqrt()  # its derivative at 0 is infinite
        return super().log_det(x) + zero


class OnTheMeta(Scaled):
    """Declares what it does not return, behind the back of the base class."""

    def __call__(self, xs: Any, cs: Any = ()) -> Any:  # type: ignore[override]
        return (xs[0][:, :2],), xs[0].sum(1)


FAULTS = (
    (InexactInverse, ("forward then inverse", "must undo")),
    (WrongLogDet, ("by autograd", "they differ")),
    (LogDetOfTheForward, ("must cancel",)),
    (ChangesItsInput, ("input 0", "in place")),
    (TouchesItsInput, ("inverse changed input 0 in place",)),
    (DrawsFromTorch, ("global generator of torch", "forward")),
    (DrawsFromNumpy, ("global generator of numpy", "inverse")),
    (DrawsFromRandom, ("global generator of random",)),
    (Counts, ("the results differ",)),
    (MixesRows, ("samples must be independent",)),
    (Detached, ("parameter 'log_scale'", "no gradient in the inverse direction")),
    (NotFinite, ("parameter 'log_scale'", "not finite")),
    (OnTheMeta, ("declared (B, 4)",)),
)


def test_a_correct_layer_passes() -> None:
    report = check_invertible(Scaled())
    assert report.whole.dims == 4
    assert report.whole.amplification == pytest.approx(1 / 3)
    assert report.whole.round_trip <= 1e-10
    assert report.whole.log_det_error is not None
    assert report.whole.log_det_error <= 1e-9


@pytest.mark.parametrize(("kind", "words"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
def test_each_fault_is_found(kind: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ContractError) as caught:
        check_invertible(kind())
    assert isinstance(caught.value, AssertionError)
    for word in (*words, kind.__name__):
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("kind", [InexactInverse, WrongLogDet, MixesRows])
def test_the_faulty_node_of_a_graph_is_named(kind: Any) -> None:
    x = ig.InputNode(4, name="x")
    h = ig.Node(ig.Node(x, Scaled, name="good"), kind, name="bad")
    graph = ig.Graph(x, ig.Node(h, Scaled, name="after"))
    with pytest.raises(ContractError, match="node 'bad'"):
        check_invertible(graph)
    with pytest.raises(ContractError, match="node 'bad'"):
        check_invertible(ig.Inverse(graph))


def test_the_report_has_a_row_for_each_node_of_nested_graphs_too() -> None:
    x = ig.InputNode(4, name="x")
    inner = ig.Graph(x, ig.chain(x, Scaled, Scaled, name="scale"))
    graph = ig.Graph(x, ig.Node(ig.Node(x, inner, name="inner"), Scaled, name="last"))
    report = check_invertible(graph)
    assert [row.name for row in report.nodes] == ["inner.scale_0", "inner.scale_1", "inner", "last", "(all)"]
    assert [row.amplification for row in report.nodes] == pytest.approx([1 / 3, 1 / 3, 1 / 9, 1 / 3, 1 / 27])
    lines = str(report).splitlines()
    assert lines[0].split() == ["node", "layer", "dims", "round", "trip", "log-det", "error", "amplification"]
    assert [line.split()[0] for line in lines[2:7]] == [row.name for row in report.nodes]
    assert "finite gradients" in " ".join(lines[7:])


def test_large_nodes_get_an_estimate_instead_of_a_jacobian() -> None:
    report = check_invertible(Scaled(), max_dims=3)
    assert report.whole.log_det_error is None
    assert report.whole.amplification == pytest.approx(1 / 3, rel=1e-3)
    assert "  -  " in str(report)


def test_data_of_the_callers_own_is_used() -> None:
    layer = ig.Elementwise((3,), transform=ig.Logit()).double()
    inside = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    given = inside.clone()
    report = check_invertible(layer, inputs=(inside,))
    assert report.whole.round_trip <= 1e-10
    assert torch.equal(inside, given)
    with pytest.raises(ContractError, match="in the layer's domain"):
        check_invertible(layer)  # normal numbers leave the domain
    sigmoid = ig.Elementwise((3,), transform=ig.Sigmoid()).double()
    assert check_invertible(sigmoid, outputs=(inside,)).whole.round_trip <= 1e-10


def test_tolerances_follow_the_dtype_and_the_caller() -> None:
    layer = ig.testing.randomize(ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(8)))
    report = check_invertible(layer)
    assert 1e-10 < report.whole.round_trip < 1e-4
    with pytest.raises(ContractError, match="1e-12"):
        check_invertible(layer, tolerance=1e-12)
    with pytest.raises(ig.ArgumentError, match="give tolerance="):
        check_invertible(layer.bfloat16())
    assert check_invertible(layer, tolerance=10.0, log_det_tolerance=10.0).whole.round_trip > 1e-4


def test_only_layers_and_graphs_are_checked() -> None:
    with pytest.raises(ig.ArgumentError, match="expected an Invertible"):
        check_invertible(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_checking_leaves_no_gradient_and_no_hook() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, Scaled, name="h"))
    check_invertible(graph)
    assert all(parameter.grad is None for parameter in graph.parameters())
    assert not graph["h"]._forward_hooks


def test_randomize_is_seeded_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, second, third = (ig.testing.randomize(nn.Linear(3, 2, bias=False), seed=s) for s in (1, 1, 2))
    assert not torch.equal(before, torch.get_rng_state())  # nn.Linear itself draws
    state = torch.get_rng_state()
    ig.testing.randomize(first, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    for layer in (first, second, third):
        nn.init.zeros_(layer.weight)
    assert torch.equal(ig.testing.randomize(first, 1).weight, ig.testing.randomize(second, 1).weight)
    assert not torch.equal(first.weight, ig.testing.randomize(third, 2).weight)


class RefusesEmpty(ig.Invertible):
    """A layer that fails on a batch of 0."""

    def _forward(self, xs: Any, cs: Any) -> Any:
        if len(xs[0]) == 0:
            raise ValueError("nothing to do")
        return xs, torch.zeros(len(xs[0]), dtype=xs[0].dtype)

    _inverse = _forward


def test_an_empty_batch_is_named_when_it_fails() -> None:
    with pytest.raises(ig.ContractError, match=r"forward: a batch of 0 samples\n.*ValueError: nothing to do"):
        ig.testing.check_invertible(RefusesEmpty((3,)))
