"""The base of a flow."""

from __future__ import annotations

import torch
from torch.distributions import Independent, Normal

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
