"""Flows in lampe's estimators. The last tests run where lampe is installed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig


def lampe() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others deprecate is not our affair
        pytest.importorskip("lampe")
        import lampe.diagnostics
        import lampe.inference
        import lampe.utils

        return lampe


def pairs(count: int) -> tuple[Tensor, Tensor]:
    """A linear model with normal prior and noise: the posterior is normal, of mean 0.8 x and variance 0.2."""
    theta = torch.randn(count, 2)
    return theta, theta + 0.5 * torch.randn(count, 2)


def test_it_is_called_with_conditions_and_returns_a_distribution() -> None:
    flow = ig.sbi.lampe_flow(2, 3, blocks=1, hidden=8)
    density = flow(torch.zeros(5, 3))
    assert (density.batch_shape, density.event_shape) == ((5,), (2,))
    assert len(list(flow.parameters())) == len(list(flow.flow.parameters()))
    with pytest.raises(ig.ArgumentError, match="expected a Flow"):
        ig.sbi.LampeFlow(flow.flow.graph)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_npe_of_lampe_learns_a_posterior() -> None:
    package = lampe()
    theta, x = pairs(4000)
    options = {"data": theta, "conditions": x, "blocks": 1, "hidden": 16}
    estimator = package.inference.NPE(2, 2, build=ig.sbi.lampe_flow, **options)
    loss = package.inference.NPELoss(estimator)
    optimizer = torch.optim.Adam(estimator.parameters(), 5e-3)
    step = package.utils.GDStep(optimizer, clip=1.0)
    for _ in range(5):
        for rows in torch.randperm(len(theta)).split(200):
            step(loss(theta[rows], x[rows]))
    with torch.no_grad():
        samples = estimator.flow(torch.tensor([1.0, -1.0])).sample((4000,))
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.8, -0.8]), atol=0.15, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.full((2,), 0.2), atol=0.08, rtol=0)
    held = [(t, x) for t, x in zip(*pairs(100), strict=True)]
    levels, coverage = package.diagnostics.expected_coverage_mc(estimator.flow, held, n=64)
    assert (levels - coverage).abs().max() < 0.25
