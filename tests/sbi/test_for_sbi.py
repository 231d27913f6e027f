"""Flows as estimators of the package sbi: NPE, NLE, an embedding network. Runs where sbi is installed."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others deprecate is not our affair
    pytest.importorskip("sbi.inference")
    from sbi.inference import NLE, NPE
    from sbi.utils import BoxUniform

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package writes its logs into the current folder."""
    monkeypatch.chdir(tmp_path)


SMALL: dict[str, Any] = {"blocks": 1, "hidden": 16}
FAST: dict[str, Any] = {"training_batch_size": 200, "learning_rate": 5e-3, "max_num_epochs": 15}


def pairs(count: int) -> tuple[Tensor, Tensor]:
    """A linear model with normal prior and noise: the posterior is normal, of mean 0.8 x and variance 0.2."""
    theta = torch.randn(count, 2)
    return theta, theta + 0.5 * torch.randn(count, 2)


def prior() -> torch.distributions.Distribution:
    return torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))


def estimator() -> Any:
    theta, x = torch.randn(50, 2), torch.randn(50, 3)
    return ig.sbi.posterior(**SMALL)(theta, x)


def test_shapes_are_those_that_sbi_asks_for() -> None:
    density = estimator()
    assert (density.input_shape, density.condition_shape) == ((2,), (3,))
    theta, x = torch.randn(7, 5, 2), torch.randn(5, 3)
    expected = density.net.log_prob(theta.flatten(0, 1), x.expand(7, 5, 3).flatten(0, 1)).view(7, 5)
    torch.testing.assert_close(density.log_prob(theta, x), expected)
    torch.testing.assert_close(density.log_prob(theta[0], x), expected[:1])
    torch.testing.assert_close(density.log_prob(theta, x.expand(7, 5, 3)), expected)
    torch.testing.assert_close(density.loss(theta[0], x), -expected[0])
    one = density.log_prob(theta, x[:1])
    torch.testing.assert_close(one[:, 2], density.log_prob(theta[:, 2:3], x[:1])[:, 0])
    assert density.sample(torch.Size((4,)), x).shape == (4, 5, 2)
    samples, log_prob = density.sample_and_log_prob(torch.Size((4,)), x)
    torch.testing.assert_close(log_prob, density.log_prob(samples, x).detach(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="condition"):
        density.sample(torch.Size((4,)), torch.zeros(5, 2))


def test_copies_and_pickles() -> None:
    density, theta, x = estimator(), torch.randn(1, 5, 2), torch.randn(5, 3)
    for other in (copy.deepcopy(density), pickle.loads(pickle.dumps(density))):
        torch.testing.assert_close(other.log_prob(theta, x), density.log_prob(theta, x))
    pickle.dumps(ig.sbi.likelihood(**SMALL))


def test_npe_learns_a_posterior() -> None:
    inference = NPE(prior(), density_estimator=ig.sbi.posterior(**SMALL), show_progress_bars=False)
    density = inference.append_simulations(*pairs(3000)).train(**FAST)
    assert type(density) is ig.sbi.SbiEstimator
    posterior = inference.build_posterior(density)
    samples = posterior.sample((4000,), x=torch.tensor([1.0, -1.0]), show_progress_bars=False)
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.8, -0.8]), atol=0.2, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.full((2,), 0.2), atol=0.08, rtol=0)
    assert posterior.log_prob(samples[:10], x=torch.tensor([1.0, -1.0])).shape == (10,)
    batch = posterior.sample_batched((50,), x=torch.randn(3, 2), show_progress_bars=False)
    assert batch.shape == (50, 3, 2)


@pytest.mark.slow
def test_a_second_round_of_npe_with_a_bounded_prior() -> None:
    box = BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))
    inference = NPE(box, density_estimator=ig.sbi.posterior(**SMALL), show_progress_bars=False)
    proposal: Any = box
    for _ in range(2):
        theta = proposal.sample((1000,))
        x = theta + 0.5 * torch.randn_like(theta)
        density = inference.append_simulations(theta, x, proposal=proposal).train(**FAST)
        posterior = inference.build_posterior(density)
        proposal = posterior.set_default_x(torch.tensor([[0.5, -0.5]]))
    samples = posterior.sample((2000,), show_progress_bars=False)
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.5, -0.5]), atol=0.2, rtol=0)


def test_a_series_with_an_embedding_network() -> None:
    theta = torch.rand(1500, 1) + 0.5
    time = torch.linspace(0, 1, 40)
    x = torch.sin(6 * theta * time).unsqueeze(1) + 0.1 * torch.randn(1500, 1, 40)
    summary = ig.nets.SeriesSummary(channels=1, length=40, features=4, hidden=8)
    build = ig.sbi.posterior(summary=summary, **SMALL)
    box = BoxUniform(torch.tensor([0.5]), torch.tensor([1.5]))
    inference = NPE(box, density_estimator=build, show_progress_bars=False)
    density = inference.append_simulations(theta, x).train(**FAST)
    assert "summary" in dict(density.net.graph.layers)
    samples = inference.build_posterior(density).sample((500,), x=x[:1], show_progress_bars=False)
    assert samples.mean().item() == pytest.approx(theta[0].item(), abs=0.1)


@pytest.mark.slow
def test_nle_learns_a_likelihood() -> None:
    inference = NLE(prior(), density_estimator=ig.sbi.likelihood(**SMALL), show_progress_bars=False)
    density = inference.append_simulations(*pairs(3000)).train(**FAST)
    posterior = inference.build_posterior(
        density, mcmc_method="slice_np_vectorized", mcmc_parameters={"num_chains": 20, "warmup_steps": 20, "thin": 1}
    )
    samples = posterior.sample((1000,), x=torch.tensor([1.0, -1.0]), show_progress_bars=False)
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.8, -0.8]), atol=0.2, rtol=0)
    torch.testing.assert_close(samples.var(0), torch.full((2,), 0.2), atol=0.1, rtol=0)


def test_a_flow_of_the_users_own() -> None:
    def affine(features: int, context: int, **_: Any) -> ig.Flow:
        x, c = ig.InputNode(features, name="x"), ig.ConditionNode(context, name="c")
        args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
        return ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))

    density = ig.sbi.posterior(affine)(torch.randn(5, 2), torch.randn(5, 3))
    assert density.sample(torch.Size((4,)), torch.zeros(1, 3)).shape == (4, 1, 2)


def test_each_estimator_has_a_summary_network_of_its_own() -> None:
    summary = ig.nets.SeriesSummary(1, 16, features=2, hidden=4)
    build = ig.sbi.posterior(summary=summary, **SMALL)
    theta, x = torch.randn(5, 2), torch.randn(5, 1, 16)
    found = [{id(p) for p in module.parameters()} for module in (build(theta, x), build(theta, x), summary)]
    assert len(set.union(*found)) == sum(map(len, found))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ig.sbi.SbiEstimator(torch.nn.Identity()), ig.ArgumentError, "expected a Flow"),
        (lambda: ig.sbi.SbiEstimator(ig.recipes.spline_flow(2, **SMALL)), ig.GraphError, "0 conditions"),
        (lambda: ig.sbi.posterior(blks=2), ig.ArgumentError, "'blks'\n  options are summary, bounds, autoregressive"),
        (lambda: ig.sbi.likelihood(lambda features: None), ig.ArgumentError, "too many positional arguments"),
        (lambda: ig.sbi.posterior(3), ig.ArgumentError, "flow: int"),
        (lambda: ig.sbi.likelihood()(torch.zeros(5, 2), torch.zeros(5, 2, 3)), ig.GraphError, "models vectors"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
