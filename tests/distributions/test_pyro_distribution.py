"""Flows in Pyro's models and guides. Runs where pyro-ppl is installed."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch

import invgraph as ig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others deprecate is not our affair
    pyro = pytest.importorskip("pyro")
    import pyro.distributions as dist
    from pyro.infer import SVI, Predictive, Trace_ELBO


def flow_of(conditions: int = 0) -> ig.Flow:
    x = ig.InputNode(2, name="x")
    c = ig.ConditionNode(3, name="c")
    h: Any = x
    for k in range(3):
        args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=16)}
        h = ig.Node(ig.Node(h, ig.Permute, {"seed": k}), ig.Coupling, args, conditions=c if conditions else ())
    return ig.Flow(ig.Graph(x, h, c if conditions else ()))


def test_it_has_pyros_methods() -> None:
    density = flow_of(1).given(torch.zeros(5, 3)).to_pyro()
    assert density.shape((7,)) == (7, 5, 2)
    assert density().shape == (5, 2)
    assert density.expand_by((4,)).batch_shape == (4, 5)
    assert density.expand((4, 5)).to_event(1).event_shape == (5, 2)
    assert type(density.expand((4, 5))) is type(density)
    x = density.rsample((3,))
    for other in (copy.deepcopy(density), pickle.loads(pickle.dumps(density))):
        assert other.shape() == (5, 2)
        torch.testing.assert_close(other.log_prob(x), density.log_prob(x))
    torch.testing.assert_close(density.mask(torch.tensor(False)).log_prob(x), torch.zeros(3, 5))


def test_pyro_shows_our_message() -> None:
    """It raises errors again, as the same type with a longer text."""

    def guide() -> None:
        pyro.sample("z", flow_of(1).given(torch.zeros(4)).to_pyro())

    with pytest.raises(ig.ShapeError, match=r"condition 'c'(.|\n)*expected"):
        pyro.poutine.trace(guide).get_trace()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_guide_that_is_a_flow_learns_a_posterior() -> None:
    """A linear Gaussian model, whose posterior is known: mean and covariance come out."""
    pyro.clear_param_store()
    noise, seen = 0.5, torch.tensor([1.0, -0.5])
    mix = torch.tensor([[1.0, 0.4], [0.0, 1.0]])

    def model() -> None:
        theta = pyro.sample("theta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(theta @ mix.T, noise).to_event(1), obs=seen)

    flow = flow_of()

    def guide() -> None:
        pyro.module("flow", flow)
        pyro.sample("theta", flow.given().to_pyro())

    torch.manual_seed(0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=32, vectorize_particles=True))
    for _ in range(300):
        svi.step()
    precision = torch.eye(2) + mix.T @ mix / noise**2
    covariance = precision.inverse()
    draws = flow.given().sample((20_000,))
    torch.testing.assert_close(draws.mean(0), covariance @ mix.T @ seen / noise**2, atol=0.1, rtol=0)
    torch.testing.assert_close(draws.T.cov(), covariance, atol=0.1, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_a_flow_as_likelihood_in_a_plate_and_a_module() -> None:
    pyro.clear_param_store()

    class Model(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow_of(1)

        def forward(self, c: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
            with pyro.plate("rows", len(c)):
                return pyro.sample("x", self.flow.given(c).to_pyro(), obs=x)

    model = Model()
    c, x = torch.randn(6, 3), torch.randn(6, 2)
    trace = pyro.poutine.trace(model).get_trace(c, x)
    torch.testing.assert_close(trace.log_prob_sum(), model.flow.log_prob(x, c).sum())
    assert model(c).shape == (6, 2)
    assert Predictive(model, num_samples=4)(c)["x"].shape == (4, 6, 2)


def test_a_graph_as_a_transform_of_pyros() -> None:
    flow = flow_of(1)
    c = torch.randn(5, 3)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    density = dist.TransformedDistribution(base, [flow.graph.transform(c).inv])
    x = pyro.sample("x", density)
    torch.testing.assert_close(density.log_prob(x), flow.given(c).log_prob(x))
