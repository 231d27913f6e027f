"""Training by maximum likelihood: what is kept, when it stops, what it shows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.inference import fit, training


class Gaussian(nn.Module):
    """A normal density whose mean is learned; with conditions, they are added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        center = self.mean if c is None else self.mean + c
        return -0.5 * (x - center).square().sum(1) - math.log(2 * math.pi)


def conditional_flow() -> ig.Flow:
    return ig.recipes.spline_flow(2, 2, blocks=1, hidden=8)


def test_the_maximum_of_the_likelihood_is_found_and_kept() -> None:
    x = torch.randn(1000, 2) + torch.tensor([1.0, -1.0])
    model = Gaussian()
    history = fit(model, x, lr=5e-2, epochs=100, patience=10)
    torch.testing.assert_close(model.mean.detach(), torch.tensor([1.0, -1.0]), atol=0.15, rtol=0)
    assert history.stopped
    assert len(history.train) == len(history.validation) == history.best + 11
    assert history.validation[history.best] == min(history.validation)
    assert not model.training


def test_the_best_parameters_are_those_of_the_best_epoch() -> None:
    x = torch.randn(100, 2)
    model = Gaussian()
    history = fit(model, x, lr=3.0, epochs=8, patience=8, validation=0.5, batch=10)
    held = x[torch.randperm(100, generator=torch.Generator().manual_seed(0))[:50]]
    with torch.no_grad():
        assert -model(held).mean().item() == pytest.approx(history.validation[history.best], abs=1e-6)


def test_the_unit_of_the_data_does_not_change_what_is_learned() -> None:
    """Another unit adds a constant to every log-density."""

    class Shifted(Gaussian):
        shift = 0.0

        def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
            return super().forward(x, c) + self.shift

    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for shift in (0.0, 3000.0, -3000.0):
        model = Shifted().double()
        model.shift = shift
        history = fit(model, x, lr=0.3, epochs=80, patience=8, batch=30, average=0.0)
        found.append((model.mean.detach(), len(history.train)))
    for mean, epochs in found[1:]:
        torch.testing.assert_close(mean, found[0][0], atol=1e-6, rtol=0)
        assert epochs == found[0][1]


def test_rows_of_conditions_stay_with_their_data() -> None:
    c = 10 * torch.randn(400, 2)
    model = Gaussian()
    history = fit(model, c + 0.1 * torch.randn(400, 2) + 0.5, c, lr=5e-2, epochs=40)
    assert history.validation[history.best] < 2
    torch.testing.assert_close(model.mean.detach(), torch.full((2,), 0.5), atol=0.05, rtol=0)


def test_the_same_seed_gives_the_same_model_and_the_global_state_stays() -> None:
    x = torch.randn(100, 2)
    state = torch.get_rng_state()
    models = [Gaussian(), Gaussian()]
    for model in models:
        fit(model, x, epochs=2, seed=3)
    assert torch.equal(models[0].mean, models[1].mean)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ig.NumericsError])
def test_the_best_parameters_are_kept_if_training_is_broken_off(error: type[BaseException]) -> None:
    """An interrupt may come while the averages are in the model, in validation or in a step."""
    x, models, losses = torch.randn(40, 2), [], []
    for stop in (None, 0, 1, 3, 4):  # an epoch here is one step and one validation; the second epoch is the best
        model, calls = Gaussian(), itertools.count()

        def break_off(*_: Any, calls: Any = calls, stop: int | None = stop) -> None:
            if next(calls) == stop:
                raise error("broken off", "", "")

        model.register_forward_hook(break_off)
        model.mean.data += x.mean(0) + torch.tensor([0.3, 0.0])
        options = {"lr": 0.3, "epochs": 2 if stop is None else 9, "average": 0.5, "late_decay": 0.0}
        if stop is None:
            losses = fit(model, x, **options).validation
        else:
            with pytest.raises(error, match="broken off"):
                fit(model, x, **options)
        assert not model.training
        models.append(model.mean.detach())
    start = x.mean(0) + torch.tensor([0.3, 0.0])
    assert losses[1] < losses[0]
    assert torch.equal(models[1], start)  # nothing was learned yet
    assert not torch.equal(models[2], start)  # no epoch has ended: a part of one is better than none
    assert not torch.equal(models[3], models[0])  # only the first epoch has ended
    assert torch.equal(models[4], models[0])


def test_the_line_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Gaussian(), torch.randn(20, 2), epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert shown.count("\r") == 2
    assert "epoch 2/2" in shown
    assert shown.endswith("\n")
    fit(Gaussian(), torch.randn(20, 2), epochs=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: fit(Gaussian(), x, x[:5]), ig.ShapeError, "same number of rows"),
        (lambda x: fit(Gaussian(), x[:1]), ig.ShapeError, "at least two rows"),
        (lambda x: fit(Gaussian(), "x"), ig.ArgumentError, "x must be a tensor"),
        (lambda x: fit(lambda x: x, x), ig.ArgumentError, "expected a Flow"),
        (lambda x: fit(Gaussian(), x, validation=1.0), ig.GraphError, "no rows are left"),
        (lambda x: fit(Gaussian(), x, epochs=0), ig.GraphError, "epochs must be at least 1"),
        (lambda x: fit(Gaussian(), x * math.inf, epochs=1), ig.NumericsError, "in epoch 0"),
        (lambda x: fit(nn.Linear(2, 2), x), ig.ShapeError, "not its graph"),
        (lambda x: fit(ig.recipes.spline_flow(2, blocks=1, hidden=8).graph, x), ig.ShapeError, "a result tuple"),
        (lambda x: fit(conditional_flow(), x[:, None], x), ig.ShapeError, r"\(9, 9\) for rows of shapes \(9, 1, 2\)"),
        (lambda x: fit(Gaussian().requires_grad_(False), x), ig.GraphError, "frozen.*\n.*nothing to train"),
        (lambda x: torch.no_grad()(fit)(Gaussian(), x), ig.GraphError, "under torch.no_grad"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(torch.randn(10, 2))


def test_data_outside_a_box_are_named() -> None:
    x = ig.InputNode(2, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    flow = ig.Flow(ig.Graph(x, ig.chain(x, (ig.Box, {"low": 0.0, "high": 1.0}), (ig.Coupling, args))))
    with pytest.raises(ig.NumericsError, match="outside the model's domain"):
        fit(flow, torch.full((10, 2), 2.0), epochs=1)


def test_the_average_of_the_parameters_is_kept_and_the_steps_go_on_from_the_parameters() -> None:
    """A learning rate at which the parameters themselves never settle: their average is close to the optimum."""
    x = torch.randn(1000, 2) + torch.tensor([1.0, -1.0])
    errors, losses = [], []
    for average in (0.0, 0.99):
        model = Gaussian()
        losses.append(fit(model, x, lr=0.5, batch=10, epochs=6, average=average).train)
        errors.append((model.mean.detach() - x.mean(0)).norm().item())
    assert errors[1] < 0.1 < errors[0], errors
    assert losses[0] == losses[1]


def test_frozen_parameters_stay_and_an_average_out_of_range_is_refused() -> None:
    model = nn.ModuleDict({"trained": Gaussian(), "frozen": Gaussian()})
    model.forward = lambda x: model["trained"](x)  # type: ignore[method-assign]
    model["frozen"].requires_grad_(False)
    fit(model, torch.randn(50, 2), epochs=2)
    assert not model["frozen"].mean.any()  # type: ignore[union-attr,operator]
    with pytest.raises(ig.GraphError, match=r"average must lie in \[0, 1\)"):
        fit(model, torch.randn(50, 2), average=1.0)


class Regression(nn.Module):
    """A normal density whose mean is a network of the condition, with far more parameters than data."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 1))
        self.seen: list[float] = []  # the norm of a matrix at each epoch

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if not self.training:
            self.seen.append(self.net[0].weight.norm().item())
        return -0.5 * (x - self.net(c)).square().sum(1) - 0.5 * math.log(2 * math.pi)


def noisy(count: int) -> tuple[Tensor, Tensor]:
    c = torch.randn(count, 20)
    return c[:, :1] + torch.randn(count, 1), c


def test_the_better_of_both_parts_is_kept() -> None:
    x, c = noisy(60)
    found, norms = [], []
    for decay in (0.0, 0.05):
        torch.manual_seed(1)
        model = Regression()
        history = fit(model, x, c, lr=1e-2, patience=10, late_decay=decay, validation=0.3)
        assert (history.late is None) == (decay == 0)
        assert history.stopped
        found.append(min(history.validation))
        norms.append(model.seen[-1])
        held = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:18]
        assert -model(x[held], c[held]).mean().item() == pytest.approx(found[-1], abs=1e-5)
    assert found[1] <= found[0]
    assert norms[1] < norms[0]


def test_the_second_part_starts_from_the_best_parameters() -> None:
    x, c = noisy(100)
    model = Regression()
    history = fit(model, x, c, lr=1e-2, patience=15, average=0, late_decay=1e-9, validation=0.3, epochs=100)
    assert history.late is not None
    best = history.validation[: history.late].index(min(history.validation[: history.late]))
    before, last, first = (model.seen[epoch] for epoch in (best, history.late - 1, history.late))
    assert abs(first - before) < 0.3 * abs(last - before)


def test_the_second_part_shrinks_what_has_axes() -> None:
    x, c = noisy(100)
    model = Regression()
    history = fit(model, x, c, lr=1e-2, patience=5, average=0, late_decay=0.9, validation=0.3, batch=35, epochs=60)
    assert history.late is not None
    best = history.validation[: history.late].index(min(history.validation[: history.late]))
    assert history.late == best + 6
    before, first = model.seen[best], model.seen[history.late]  # two steps, of which both together shrink by 0.9
    assert first == pytest.approx(before * (1 - 0.45) ** 2, rel=0.15)
    assert fit(Gaussian(), x.expand(100, 2), patience=3).late is None  # nothing has two axes


@pytest.mark.parametrize("rows", [40, 41, 42])
def test_late_decay_is_that_of_an_epoch_with_any_last_batch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_RISE", -1.0)  # a loss that stays is followed by a second part

    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.ones(2, 2)), [1.0]

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                self.seen.append(self.weight.mean().item())
            return 0 * self.weight.sum() + 0 * x.sum(1)

    model = Still()
    history = fit(model, torch.zeros(rows + 10, 2), batch=20, patience=3, average=0, validation=10 / (rows + 10))
    assert history.late is not None
    shrunk = model.seen[history.late + 2] / model.seen[history.late + 1]
    assert shrunk == pytest.approx(0.95, abs=0.002)


class Scripted(nn.Module):
    """A model whose validation losses are given."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight, self.losses = nn.Parameter(torch.ones(1, 1)), iter(losses)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(1) if self.training else torch.full((len(x),), -float(next(self.losses)))


@pytest.mark.parametrize(
    ("losses", "epochs", "best", "late"),
    [
        ([3, 2, 4, 4, 4, 9, 3, 1, 5, 5, 5], 11, 7, 5),
        ([2.0] * 30, 4, 0, None),  # equal is no improvement, and no overfitting
        ([2.0, 1.0, 1.002, 1.009, 1.006], 5, 1, None),  # at the end 0.006 above the best, less than 3 times 0.0025
        ([2.0, 1.0, 1.0, 1.0, 1.009, 0.9, 1.0, 1.0, 1.0], 9, 5, 5),
        ([3, 2, 4, 4, 4] + [30 - k for k in range(25)], 12, 1, 5),  # 22 above the best, 6 in the last 6 epochs
        ([0, 1, 1, 1, 30, 20, 10, 5, 1, 1, 1, 1, 1, 1], 12, 0, 4),  # fell a lot, then stayed for three epochs
        ([3, 2, 4, 4, 4] + [11 - k for k in range(15)] + [9] * 9, 23, 19, 5),  # 3 above the best, 6 in the last 6
    ],
)
def test_the_second_part_ends_where_it_does_not_lead_on(
    losses: list[float], epochs: int, best: int, late: int | None
) -> None:
    history = fit(Scripted(losses), torch.randn(20, 2), patience=3)
    assert (len(history.validation), history.best, history.late, history.stopped) == (epochs, best, late, True)


class Parts(nn.Module):
    """A normal density whose mean is a part of a larger tensor; the rest of it is frozen."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.zeros(4, 6)
        self.left, self.right = nn.Parameter(table[:, :3]), nn.Parameter(table[:, 3:], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return -0.5 * (x - self.left.flatten()).square().sum(1)


def test_parameters_that_are_parts_of_tensors_are_trained_in_their_places() -> None:
    model, mean = Parts(), torch.arange(12.0)
    fit(model, mean + 0.1 * torch.randn(400, 12), epochs=200, lr=0.1, late_decay=0)
    torch.testing.assert_close(model.left.flatten(), mean, rtol=0, atol=0.1)
    assert not model.right.any()


class Spectral(nn.Module):
    """A summary with a complex parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, 3, dtype=torch.complex64) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return (torch.fft.rfft(x[:, 0]) @ self.weight).real


def test_complex_parameters_are_trained() -> None:
    flow = ig.recipes.spline_flow(2, (1, 16), summary=Spectral(), blocks=1, hidden=8)
    net: Any = flow.graph["summary"]
    before = net.weight.detach().clone()
    fit(flow, torch.randn(100, 2), torch.randn(100, 1, 16), epochs=3, batch=20)
    assert not torch.equal(net.weight, before)


def test_a_row_that_is_left_over_joins_the_last_batch() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 4))
    flow = ig.recipes.spline_flow(2, 3, summary=net, blocks=1, hidden=8)
    seen: list[int] = []
    flow.graph["summary"].register_forward_pre_hook(lambda net, xs: seen.append(len(xs[0])) if net.training else None)
    fit(flow, torch.randn(45, 2), torch.randn(45, 3), epochs=1, batch=20)  # 41 to train on
    assert seen == [20, 21]
    seen.clear()
    fit(flow, torch.randn(47, 2), torch.randn(47, 3), epochs=1, batch=20)
    assert seen == [20, 20, 2]


def test_a_gradient_that_is_not_finite_is_named() -> None:
    class Root(Gaussian):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) - self.mean.square().sum().sqrt()

    with pytest.raises(ig.NumericsError, match=r"gradient of norm nan at the finite loss [\d.]+ in epoch 0"):
        fit(Root(), torch.randn(100, 2), epochs=1)


def test_data_or_conditions_with_a_gradient_are_refused() -> None:
    flow = ig.recipes.spline_flow(2, 3, blocks=1, hidden=8)
    x, c = torch.randn(50, 2), torch.randn(50, 3)
    for data, conditions in ((x, nn.Linear(3, 3)(c)), (x.clone().requires_grad_(), c)):
        with pytest.raises(ig.ArgumentError, match=r"pass x.detach\(\), or run it in a FeatureNode"):
            fit(flow, data, conditions, epochs=1)
