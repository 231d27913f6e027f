"""A flow's distribution keeps what torch.distributions promises, and the flow's own numbers."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, VonMises

import invgraph as ig
from invgraph.distributions import flow_distribution
from invgraph.distributions.dependencies import Dependencies
from invgraph.testing import randomize


def flow_of(base: Any = None, conditions: int = 1) -> ig.Flow:
    x = ig.InputNode(2, name="x")
    cs = [ig.ConditionNode(3, name=f"c{k}") for k in range(conditions)]
    h: Any = x
    for k in range(2):
        args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        h = ig.Node(ig.Node(h, ig.Permute, {"seed": k}), ig.Coupling, args, conditions=cs)
    graph = ig.Graph(x, h, cs[0] if conditions == 1 else cs)
    randomize(graph)
    return ig.Flow(graph, base)


class Opaque(nn.Module):
    """A shift that an object of ours holds; it can't be changed, so nobody looks into it."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.held = ig.RationalQuadraticSpline(bound=shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.held.bound


class Shifted(nn.Module):
    """A module with a weight that is no parameter, and a setting in an object."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.shift, self.settings = torch.ones(4), SimpleNamespace(factor=factor)

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.settings.factor * x + self.shift
        return shifted


@pytest.mark.parametrize("batch", [(), (5,), (4, 5), (1,)])
@pytest.mark.parametrize("samples", [(), (7,), (2, 3), (0,)])
def test_shapes_and_densities_are_those_of_torch_distributions(batch: Any, samples: Any) -> None:
    flow, c = flow_of(), torch.randn(*batch, 3)
    density = flow.given(c)
    assert (density.batch_shape, density.event_shape, density.has_rsample) == (batch, (2,), True)
    x = density.sample(samples)
    assert x.shape == (*samples, *batch, 2)
    assert not x.requires_grad
    assert density.rsample(samples).requires_grad
    count = math.prod((*samples, *batch))
    rows = c.expand(*samples, *batch, 3).reshape(count, 3)
    expected = flow.log_prob(x.reshape(count, 2), rows).reshape((*samples, *batch))
    torch.testing.assert_close(density.log_prob(x), expected)
    drawn, log_prob = density.sample_and_log_prob(samples)
    torch.testing.assert_close(log_prob, density.log_prob(drawn).detach())


def test_a_flow_without_conditions_takes_values_of_any_batch_shape() -> None:
    flow = flow_of(conditions=0)
    density = flow.given()
    assert density.batch_shape == ()
    x = density.sample((4, 5))
    torch.testing.assert_close(density.log_prob(x), flow.log_prob(x.flatten(0, 1)).view(4, 5))
    assert density.sample().shape == (2,)


def test_batch_shapes_of_several_conditions_are_broadcast() -> None:
    flow = flow_of(conditions=2)
    a, b = torch.randn(4, 1, 3), torch.randn(5, 3)
    density = flow.given((a, b))
    assert density.batch_shape == (4, 5)
    x = density.sample()
    rows = tuple(c.expand(4, 5, 3).flatten(0, 1) for c in (a, b))
    torch.testing.assert_close(density.log_prob(x), flow.log_prob(x.flatten(0, 1), rows).view(4, 5))


@torch.no_grad()
@pytest.mark.parametrize("shapes", [((5, 3), (5, 3)), ((4, 1, 3), (5, 3)), ((4, 5, 3), (4, 5, 3))])
def test_conditions_of_any_batch_shape_are_followed(shapes: Any) -> None:
    flow = flow_of(conditions=2)
    a, b = map(torch.randn, shapes)
    density = flow.given((a, b))
    wide = density.expand((2, *density.batch_shape))
    x = density.sample()
    for change in (lambda: a.add_(1.0), lambda: b.data.mul_(2.0)):
        before = density.log_prob(x), wide.log_prob(x)
        change()
        expected = flow.given((a.clone(), b.clone())).log_prob(x)
        for old, now in zip(before, (density.log_prob(x), wide.log_prob(x)), strict=True):
            torch.testing.assert_close(now, expected.expand(now.shape))
            assert not torch.allclose(old, now)


def test_values_are_broadcast_against_the_batch() -> None:
    density = flow_of().given(torch.randn(5, 3))
    x = torch.randn(2)
    torch.testing.assert_close(density.log_prob(x), density.log_prob(x.expand(5, 2)))
    assert density.log_prob(torch.randn(6, 1, 2)).shape == (6, 5)


@pytest.mark.parametrize(("batch", "wide"), [((), (6,)), ((5,), (5,)), ((5,), (6, 5)), ((5, 1), (2, 5, 4))])
def test_expand(batch: Any, wide: Any) -> None:
    density = flow_of().given(torch.randn(*batch, 3))
    large = density.expand(wide)
    assert large.batch_shape == wide
    x = large.sample((3,))
    assert x.shape == (3, *wide, 2)
    torch.testing.assert_close(large.log_prob(x), density.log_prob(x))
    assert large.expand((7, *wide)).rsample().shape == (7, *wide, 2)


def test_gradients_reach_parameters_conditions_and_values_as_in_the_flow() -> None:
    flow, c = flow_of(), torch.randn(5, 3, requires_grad=True)
    x = torch.randn(7, 5, 2, requires_grad=True)
    given = (x, c, *flow.parameters())
    density = flow.given(c)
    plain = flow.log_prob(x.flatten(0, 1), c.expand(7, 5, 3).flatten(0, 1)).sum()
    expected = torch.autograd.grad(plain, given)
    for _ in range(2):  # each result can be differentiated on its own
        torch.testing.assert_close(torch.autograd.grad(density.log_prob(x).sum(), given), expected)
    sample, log_prob = density.rsample_and_log_prob((7,))
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(sample.sum() + log_prob.sum(), given[1:]))


class Hidden(nn.Module):
    """A network whose result depends on an array, on an object, and on a network that is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.options, self.frozen = np.ones(4), SimpleNamespace(shift=0.0), [nn.Linear(3, 4)]

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        result: Tensor = self.frozen[0](c) * float(self.gain[0]) + self.options.shift
        return result


@torch.no_grad()
def test_what_was_computed_from_the_conditions_is_used_until_something_changes() -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
    calls: list[int] = []
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.LeakyReLU(0.1), nn.Identity())
    net.register_forward_hook(lambda *_: calls.append(1))
    feature = ig.FeatureNode(c, net, name="summary")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=feature), c))
    randomize(flow.graph)
    flow.eval()
    given = torch.randn(3)
    density = flow.given(given)
    calls.clear()
    points = torch.randn(4, 2)
    first = density.log_prob(points)
    density.sample((10,)), density.log_prob(points)
    assert len(calls) == 1
    changes: list[Callable[[], object]] = [
        lambda: net[0].weight.add_(0.1),
        lambda: given.add_(1.0),
        lambda: flow.train(),
        lambda: flow.eval(),
        lambda: net[0].weight.data.mul_(0.9),  # neither this nor the next one is counted as a change
        lambda: given.numpy().__imul__(2),
        lambda: torch.nn.utils.vector_to_parameters(torch.randn(16), net.parameters()),
        lambda: setattr(net[2], "negative_slope", 0.5),
        lambda: setattr(net, "3", Shifted(2.0)),
        lambda: setattr(net, "3", Shifted(3.0)),
        lambda: setattr(net, "3", Opaque(2.0)),
        lambda: setattr(net, "3", Opaque(3.0)),  # the class and the settings of the module before
        lambda: setattr(net, "3", Shifted(3.0)),
        lambda: setattr(net[3], "shift", torch.zeros(4)),
        lambda: net[3].shift.data.add_(1.0),
        lambda: net[0].register_forward_hook(lambda _, args, output: 2 * output),
        lambda: setattr(net, "0", Hidden()),
        lambda: net[0].gain.__imul__(2),
        lambda: setattr(net[0].options, "shift", 1.0),
        lambda: net[0].frozen[0].weight.data.mul_(2),
        lambda: setattr(net[0], "forward", lambda x: x @ torch.ones(3, 4)),
    ]
    for count, change in enumerate(changes, 2):
        change()
        density.log_prob(points)
        assert len(calls) == count
    assert not torch.allclose(density.log_prob(points), first)
    torch.testing.assert_close(density.log_prob(points), flow.log_prob(points, given.expand(4, 3)))


@pytest.mark.parametrize(
    "net", [nn.LSTM(3, 4), nn.TransformerEncoderLayer(4, 2), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))]
)
def test_networks_of_torch_can_be_compared(net: nn.Module) -> None:
    assert Dependencies(net).state == Dependencies(net).state


@dataclass(slots=True)
class Slots:
    """Settings that have no ``__dict__``."""

    gain: float = 1.0


def test_settings_without_a_dict_and_sizes_of_torch_are_seen() -> None:
    net: Any = nn.Linear(2, 2)
    net.options, net.size = Slots(), torch.Size((1, 2))
    before = Dependencies(net).state
    assert Dependencies(net).state == before
    net.options.gain = 2.0
    assert Dependencies(net).state != before
    net.options.gain, net.size = 1.0, torch.Size((3, 2))
    assert Dependencies(net).state != before


@torch.no_grad()
def test_nothing_is_kept_of_networks_with_objects_that_cannot_be_compared() -> None:
    class Settings:  # of another library, say: what they consist of is not known
        bound = 1.0

    net: Any = Opaque(1.0)
    net.held = Settings()
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    feature = ig.FeatureNode(c, net, name="summary")
    flow = ig.Flow(randomize(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=feature), c)))
    given, points = torch.randn(3), torch.randn(4, 2)
    density = flow.given(given)
    density.log_prob(points), density.log_prob(points)
    net.held.bound = 5.0
    torch.testing.assert_close(density.log_prob(points), flow.log_prob(points, given.expand(4, 3)))


@torch.no_grad()
def test_dropout_in_training_is_drawn_anew_at_each_call() -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
    feature = ig.FeatureNode(c, nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5)), name="summary")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    flow = ig.Flow(randomize(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=feature), c)))
    density, points = flow.given(torch.randn(4, 3)), torch.randn(4, 2)
    assert not torch.equal(density.log_prob(points), density.log_prob(points))
    flow.eval()
    assert torch.equal(density.log_prob(points), density.log_prob(points))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_density_follows_a_flow_whose_graph_is_exchanged(recorded: bool) -> None:
    flow, c, x = flow_of(), torch.randn(5, 3), torch.randn(5, 2)
    with torch.set_grad_enabled(recorded):
        wide = flow.given(c).expand((4, 5))
        wide.log_prob(x)
        flow.model = randomize(flow_of().graph, seed=7)
        torch.testing.assert_close(wide.log_prob(x), flow.log_prob(x, c).expand(4, 5))
        drawn, log_prob = wide.sample_and_log_prob()
        torch.testing.assert_close(log_prob, flow.log_prob(drawn, c))


def test_a_density_follows_the_flow_that_is_trained() -> None:
    flow, c = flow_of(), torch.randn(64, 3)
    density, x = flow.given(c), torch.randn(64, 2)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = -density.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    with torch.no_grad():
        torch.testing.assert_close(density.log_prob(x), flow.log_prob(x, c))


def test_within_torchs_own_distributions() -> None:
    flow, c = flow_of(), torch.randn(5, 3)
    density, x = flow.given(c), torch.randn(7, 5, 2)
    torch.testing.assert_close(Independent(density, 1).log_prob(x), density.log_prob(x).sum(-1))
    weights = torch.full((5,), 0.2)
    mixture = MixtureSameFamily(Categorical(weights), density)
    assert mixture.sample((9,)).shape == (9, 2)
    point = torch.randn(2)
    torch.testing.assert_close(mixture.log_prob(point), density.log_prob(point).logsumexp(0) - math.log(5))


def test_a_divergence_by_samples() -> None:
    """Between an affine flow of a normal base and a normal: the closed form is known."""
    x = ig.InputNode(2, name="x")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.LearnedScaling)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(torch.linspace(-0.3, 0.4, parameter.numel()).view_as(parameter))
    q = flow.given()
    sigma = q.sample((40_000,)).std(0)
    p = Independent(Normal(torch.tensor([0.3, -0.2]), torch.tensor([1.5, 1.2])), 1)
    draws, log_q = q.rsample_and_log_prob((40_000,))
    estimate = (log_q - p.log_prob(draws)).mean().item()
    closed = torch.distributions.kl_divergence(Independent(Normal(torch.zeros(2), sigma), 1), p).item()
    assert estimate == pytest.approx(closed, abs=0.03)


def test_several_outputs_and_images() -> None:
    image = ig.InputNode(1, 4, 4, name="image")
    h = ig.Node(image, ig.Squeeze)
    a, b = ig.Node(h, ig.Split, {"sizes": (2, 2)})
    density = ig.Flow(ig.Graph(image, (a, b))).given()
    assert density.sample((3,)).shape == (3, 1, 4, 4)
    assert density.log_prob(torch.randn(3, 6, 1, 4, 4)).shape == (3, 6)
    assert density.support.event_dim == 3


def test_copies_and_pickles() -> None:
    density = flow_of().given(torch.randn(5, 3))
    x = density.sample((2,))
    for other in (copy.deepcopy(density), pickle.loads(pickle.dumps(density))):
        torch.testing.assert_close(other.log_prob(x), density.log_prob(x))


def test_a_base_without_rsample() -> None:
    density = flow_of(VonMises(torch.zeros(2), torch.ones(2))).given(torch.zeros(3))
    assert not density.has_rsample
    assert density.sample((4,)).shape == (4, 2)
    for draw in (density.rsample, density.rsample_and_log_prob):
        with pytest.raises(ig.ArgumentError, match="samples have no gradients"):
            draw((4,))


def test_what_has_no_closed_form_says_so() -> None:
    density = flow_of().given(torch.zeros(3))
    calls: dict[str, Callable[[], object]] = {
        "mean": lambda: density.mean,
        "variance": lambda: density.variance,
        "stddev": lambda: density.stddev,
        "entropy": density.entropy,
        "cdf": lambda: density.cdf(torch.zeros(2)),
        "icdf": lambda: density.icdf(torch.tensor(0.5)),
        "mode": lambda: density.mode,
    }
    for name, call in calls.items():
        with pytest.raises(ig.ClosedFormError, match=f"FlowDistribution.{name}") as caught:
            call()
        assert isinstance(caught.value, NotImplementedError)  # what torch.distributions raises
        if name != "mode":
            known = {"d": density, "value": torch.zeros(2), "p": 0.5}
            estimate = eval(caught.value.advice.rpartition(": ")[2].rpartition("it by ")[2], known)
            assert estimate.shape == (() if name in ("entropy", "cdf") else (2,)), name


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda flow: flow.given(), ig.InputTypeError, "condition 'c0' is missing"),
        (lambda flow: flow.given(torch.zeros(4)), ig.ShapeError, "expected"),
        (lambda flow: flow.given("c"), ig.InputTypeError, "expected a torch.Tensor"),
        (lambda flow: flow.given(torch.zeros(3, dtype=torch.long)), ig.InputTypeError, "floating-point"),
        (lambda flow: flow.given(torch.zeros(5, 3).to_sparse()), ig.InputTypeError, "layout torch.sparse_coo"),
        (lambda flow: flow.given(torch.zeros(3)).log_prob(torch.zeros(2).to_sparse()), ig.InputTypeError, "(strided)"),
        (lambda flow: flow.given(torch.zeros(3)).log_prob(torch.zeros(3)), ig.ShapeError, "event_shape"),
        (lambda flow: flow.given(torch.zeros(5, 3)).log_prob(torch.zeros(4, 2)), ig.ShapeError, "batch_shape"),
        (lambda flow: flow.given(torch.zeros(3)).log_prob([0.0, 0.0]), ig.InputTypeError, "list"),
        (lambda flow: flow.given(torch.zeros(3)).sample(5), ig.ArgumentError, "sample_shape must be a tuple"),
        (lambda flow: flow.given(torch.zeros(3)).sample((-1,)), ig.ArgumentError, "sample_shape must be a tuple"),
        (lambda flow: flow.given(torch.zeros(5, 3)).expand((4,)), ig.GraphError, "can't be expanded"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(flow_of())


def test_nan_is_refused_where_arguments_are_validated() -> None:
    flow, c, value = flow_of(), torch.zeros(3), torch.tensor([0, math.nan])
    with pytest.raises(ig.GraphError, match="NaN"):  # another package may have changed the default
        ig.FlowDistribution(flow, c, validate_args=True).expand((2,)).log_prob(value)
    assert ig.FlowDistribution(flow, c, validate_args=False).log_prob(value).isnan()


def test_conditions_whose_batches_do_not_fit_and_graphs_of_several_inputs_are_refused() -> None:
    with pytest.raises(ig.ShapeError, match="can't be broadcast together"):
        flow_of(conditions=2).given((torch.zeros(4, 3), torch.zeros(5, 3)))
    a, b = ig.InputNode(1, name="a"), ig.InputNode(1, name="b")
    with pytest.raises(ig.GraphError, match="join the inputs"):
        ig.Flow(ig.Graph((a, b), ig.Node((a, b), ig.Concat))).given()


def test_without_pyro_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyro", None)
    monkeypatch.setitem(sys.modules, "pyro.distributions.torch_distribution", None)
    flow_distribution._pyro_class.cache_clear()
    with pytest.raises(ig.DependencyError, match="pip install pyro-ppl"):
        flow_of().given(torch.zeros(3)).to_pyro()


@pytest.mark.slow
def test_the_compiled_density_has_the_same_numbers() -> None:
    flow, c, x = flow_of(), torch.randn(5, 3), torch.randn(7, 5, 2)

    def score(x: Tensor, c: Tensor) -> Tensor:
        return flow.given(c).log_prob(x)

    compiled = torch.compile(score, backend="eager")
    torch.testing.assert_close(compiled(x, c), score(x, c))


@pytest.mark.parametrize("shape", [(-1,), (2.5,), (4, -1)])
def test_sizes_that_are_no_counts_are_refused_by_expand(shape: Any) -> None:
    with pytest.raises(ig.GraphError, match="sizes must be ints, 0 or more"):
        flow_of().given(torch.zeros(3)).expand(shape)
    assert flow_of().given(torch.zeros(3)).expand(5).batch_shape == (5,)
