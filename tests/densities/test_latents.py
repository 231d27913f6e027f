"""The base of a flow."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Categorical,
    Exponential,
    Independent,
    MixtureSameFamily,
    Normal,
    Poisson,
    TransformedDistribution,
    Uniform,
)

import invgraph as ig


def test_the_default_base_is_the_standard_normal() -> None:
    x, y = ig.InputNode(2, name="x"), ig.InputNode(1, 2, 2, name="y")
    flow = ig.Flow(ig.Graph((x, y), (ig.Node(x, ig.Elementwise, {"transform": ig.Affine()}), y)))
    for wide in (flow, flow.double()):
        bases, dtype = wide.base, next(wide.parameters()).dtype
        zs = torch.randn(5, 2, dtype=dtype), torch.randn(5, 1, 2, 2, dtype=dtype)
        assert [type(base) for base in bases] == [Independent, Independent]
        assert [base.event_shape for base in bases] == [(2,), (1, 2, 2)]
        total = sum(base.log_prob(z) for base, z in zip(bases, zs, strict=True))
        torch.testing.assert_close(wide.log_prob(zs), total)
    assert flow.extra_repr() == ""


def test_a_base_can_be_replaced() -> None:
    x = ig.InputNode(2, name="x")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Affine()})))
    own = Normal(torch.ones(2), 2 * torch.ones(2))
    flow.base = own
    assert flow.base == (own,)
    torch.testing.assert_close(flow.log_prob(torch.zeros(3, 2)), own.log_prob(torch.zeros(2)).sum().expand(3))


@pytest.mark.parametrize("base", [Uniform(torch.zeros(2), torch.ones(2)), Exponential(torch.ones(2))])
def test_a_temperature_never_leads_out_of_the_support(base: torch.distributions.Distribution) -> None:
    x = ig.InputNode(2, name="x")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Permute)), base=Independent(base, 1))
    cool = flow.sample(100_000, temperature=0.5)
    assert base.support.check(cool).all()
    deviation = base.variance.sqrt()
    assert torch.allclose(cool.std(0), 0.5 * deviation, rtol=0.02)  # four standard errors of the exponential
    with pytest.raises(ig.ArgumentError, match=r"whose support has an end\n.*temperature can be 1 at most"):
        flow.sample(1000, temperature=1.5)


DISCRETE = (
    Independent(Categorical(torch.ones(2, 4)), 1),
    Poisson(torch.ones(2)),
    Independent(TransformedDistribution(Bernoulli(torch.full((2,), 0.5)), AffineTransform(0.0, 2.0)), 1),
    MixtureSameFamily(Categorical(torch.ones(2, 3)), Poisson(torch.ones(2, 3))),
)


@pytest.mark.parametrize("base", DISCRETE, ids=lambda base: type(base).__name__)
def test_a_base_of_whole_numbers_is_refused(base: torch.distributions.Distribution) -> None:
    """Its log_prob rounds, so that every value between them would have a density, and all of them more than one."""
    x = ig.InputNode(2, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Elementwise, {"transform": ig.Affine()}))
    with pytest.raises(ig.GraphError, match=r"base 0: \w+.*\n.*whole numbers"):
        ig.Flow(graph, base)
    flow = ig.Flow(graph)
    with pytest.raises(ig.GraphError, match="whole numbers"):
        flow.base = base
