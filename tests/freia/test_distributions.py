"""FrEIA's distributions: log-probabilities hold the log-determinant, samples follow them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig

Ff, Fm, Fd = ig.freia.framework, ig.freia.modules, ig.freia.distributions


def subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 8), nn.Tanh(), nn.Linear(8, channels_out))


def chain(*, conditional: bool = False, **kwargs: Any) -> Any:
    torch.default_generator.manual_seed(0)
    net = Ff.SequenceINN(2, **kwargs)
    given: dict[str, Any] = {"cond": 0, "cond_shape": (3,)} if conditional else {}
    for _ in range(2):
        net.append(Fm.AllInOneBlock, subnet_constructor=subnet, global_affine_init=1.5, **given)
    return net.double()


NORMAL = Fd.StandardNormalDistribution(2, dtype=torch.float64)


def mass(distribution: Any) -> float:
    """The integral of the density over the plane."""
    line = torch.linspace(-15, 15, 301, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    total: Tensor = distribution.log_prob(points).exp().sum()
    return total.item() * 0.1**2


@pytest.mark.parametrize("kind", [Fd.PullBackDistribution, Fd.PushForwardDistribution])
@pytest.mark.parametrize("tuples", [False, True])
def test_densities_integrate_to_one(kind: Any, tuples: bool) -> None:
    assert mass(kind(NORMAL, chain(force_tuple_output=tuples))) == pytest.approx(1, abs=1e-3)


def test_a_layer_and_a_graph_are_transforms_as_well() -> None:
    shift = Fm.FixedLinearTransform([(2,)], M=torch.tensor([[2.0, 1.0], [0.0, 3.0]])).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    expected = NORMAL.log_prob(shift((x,))[0][0]) + math.log(6)
    torch.testing.assert_close(Fd.PullBackDistribution(NORMAL, shift).log_prob(x), expected)
    start = Ff.InputNode(2)
    node = Ff.Node(start, shift)
    graph = Ff.GraphINN([start, node, Ff.OutputNode(node)])
    torch.testing.assert_close(Fd.PullBackDistribution(NORMAL, graph).log_prob(x), expected)


def test_samples_and_values_may_have_several_leading_axes() -> None:
    net = chain(conditional=True)
    flow = Fd.PullBackDistribution(NORMAL, net)
    c = torch.randn(12, 3, dtype=torch.float64)
    torch.default_generator.manual_seed(1)
    samples = flow.sample((3, 4), [c])
    torch.default_generator.manual_seed(1)
    expected, _ = net(torch.randn(3, 4, 2, dtype=torch.float64).reshape(12, 2), [c], rev=True)
    assert not samples.requires_grad
    torch.testing.assert_close(samples, expected.detach().reshape(3, 4, 2))
    torch.testing.assert_close(flow.log_prob(samples, [c]).flatten(), flow.log_prob(samples.reshape(12, 2), c))
    assert flow.rsample((), c[:1]).shape == (2,)
    assert flow.rsample((7,), c[:1]).requires_grad
    assert flow.event_shape == (2,)


def test_wrong_values_and_transforms_are_refused() -> None:
    flow = Fd.PullBackDistribution(NORMAL, chain(conditional=True))
    split = Fm.Split([(2,)])
    for call, message in (
        (lambda: flow.log_prob(torch.zeros(4, 3)), r"the last axes must be \(2,\)"),
        (lambda: flow.log_prob(torch.zeros(4, 2).double(), [torch.zeros(3, 3).double()]), "3 rows for 4 values"),
        (lambda: Fd.PushForwardDistribution(NORMAL, split), "1 inputs and 2 outputs"),
    ):
        with pytest.raises(ig.ShapeError, match=message):
            call()


def test_both_parts_are_moved() -> None:
    flow = Fd.PushForwardDistribution(Fd.StandardNormalDistribution(2), chain().float())
    flow.force_to(torch.float64)
    assert flow.sample((3,)).dtype == torch.float64
    assert next(flow.transform.parameters()).dtype == torch.float64
