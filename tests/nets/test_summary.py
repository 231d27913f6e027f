"""Summary networks inside a graph."""

from __future__ import annotations

import pytest
import torch

import invgraph as ig


def test_a_series_and_a_set_condition_a_flow() -> None:
    x = ig.InputNode(2, name="x")
    series, points = ig.ConditionNode(3, 50, name="series"), ig.ConditionNode(20, 2, name="points")
    args = {"channels": 3, "length": 50, "features": 4}
    features = [
        ig.FeatureNode(series, ig.nets.SeriesSummary, args, name="of_series"),
        ig.FeatureNode(points, ig.nets.SetSummary, {"size": 2, "features": 5}, name="of_set"),
    ]
    coupling = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, coupling, conditions=features), (series, points)))
    with torch.no_grad():
        for parameter in flow.graph.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    data, c = torch.randn(6, 2), (torch.randn(6, 3, 50), torch.randn(6, 20, 2))
    log_prob = flow.log_prob(data, c)
    shuffled = (c[0], c[1][:, torch.randperm(20)])
    torch.testing.assert_close(flow.log_prob(data, shuffled), log_prob)
    assert not torch.allclose(flow.log_prob(data, (c[0].flip(2), c[1])), log_prob)


@pytest.mark.parametrize("length", [8, 9, 17, 100])
def test_any_length_from_eight(length: int) -> None:
    assert ig.nets.SeriesSummary(1, length, 3)(torch.zeros(2, 1, length)).shape == (2, 3)


def test_bad_arguments() -> None:
    with pytest.raises(ig.GraphError, match="at least 8"):
        ig.nets.SeriesSummary(1, 7, 3)
    with pytest.raises(ig.GraphError, match="std must be positive"):
        ig.nets.Standardizer(torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ig.GraphError, match="both must be finite"):
        ig.nets.Standardizer([0.0, torch.nan], 1.0)
    with pytest.raises(ig.GraphError, match="positive"):
        ig.nets.SetSummary(2, 0)


@pytest.mark.parametrize("mean", [(2, 3), (4, 3), (2,), (1, 4, 3)])
def test_statistics_that_do_not_broadcast_to_a_condition_are_refused_when_the_graph_is_declared(
    mean: tuple[int, ...],
) -> None:
    """Two rows of three are what a graph tries a network on: a row of statistics for each would fit these alone."""
    net = ig.nets.Standardizer(torch.zeros(mean), 1.0)
    with pytest.raises(ig.GraphError, match=r"it fails: .*mean and std of shape .*expected conditions"):
        ig.FeatureNode(ig.ConditionNode(3, name="c"), net, name="standardized")
    assert ig.nets.Standardizer(0.0, torch.ones(3, 1))(torch.zeros(5, 3, 2)).shape == (5, 3, 2)
