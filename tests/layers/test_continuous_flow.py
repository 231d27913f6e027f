"""ContinuousFlow: equations with known solutions, the order of the solver, both traces, torchdiffeq's solvers."""

from __future__ import annotations

import functools
import math
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import invgraph as ig
from invgraph.testing import randomize

D = torch.float64
SMOOTH = ig.nets.ResidualMLP(hidden=8, blocks=1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Vector field ``A x``, independent of time."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(noise(channels_out, channels_out).float())

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, : len(self.matrix)] @ self.matrix.t()


class Clock(nn.Module):
    """Vector field ``t x``, where the last channel is the time."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, :-1] * h[:, -1:]


def test_a_linear_field_gives_the_matrix_exponential() -> None:
    flow = ig.ContinuousFlow((3,), subnet=Linear, steps=200, time=0.7).double()
    matrix = flow.net.module.matrix
    x = noise(5, 3)
    (y,), log_det = flow((x,))
    assert torch.allclose(y, x @ torch.linalg.matrix_exp(0.7 * matrix).t(), atol=1e-9)
    assert torch.allclose(log_det, 0.7 * matrix.trace().expand(5), atol=1e-12)


def test_the_time_reaches_the_field() -> None:
    flow = ig.ContinuousFlow((2,), subnet=Clock, steps=100, time=2.0).double()
    x = noise(4, 2)
    (y,), log_det = flow((x,))
    assert torch.allclose(y, x * math.exp(2.0), rtol=1e-7)  # the integral of t from 0 to 2 is 2
    assert torch.allclose(log_det, torch.tensor(4.0, dtype=D), atol=1e-12)


def test_the_error_falls_with_the_fourth_power_of_the_steps() -> None:
    exact = randomize(ig.ContinuousFlow((3,), subnet=SMOOTH, steps=160), scale=1.0).double()
    x = noise(20, 3)
    (truth,), true_log_det = exact((x,))
    errors = []
    for steps in (5, 10, 20):
        flow = ig.ContinuousFlow((3,), subnet=SMOOTH, steps=steps).double()
        flow.load_state_dict(exact.state_dict())
        (y,), log_det = flow((x,))
        errors.append(((y - truth).abs().max() + (log_det - true_log_det).abs().max()).item())
    assert errors[0] > 1e-8  # else rounding is all that is seen
    assert all(10 < coarse / fine < 25 for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
def test_torchdiffeqs_solvers_agree_with_the_built_in_one(solver: str) -> None:
    pytest.importorskip("torchdiffeq")
    ours = randomize(ig.ContinuousFlow((3,), ((2,),), subnet=SMOOTH, steps=100), scale=0.6).double()
    theirs = ig.ContinuousFlow((3,), ((2,),), subnet=SMOOTH, solver=solver, tolerance=1e-10).double()
    theirs.load_state_dict(ours.state_dict())
    x, c = noise(4, 3), noise(4, 2, seed=1)
    (y,), log_det = theirs((x,), (c,))
    expected, their_log_det = ours((x,), (c,))
    close = 1e-8 if solver == "dopri5" else 1e-6  # the interpolation at the end of dopri8 is coarser
    assert torch.allclose(y, expected[0], atol=close)
    assert torch.allclose(log_det, their_log_det, atol=close)
    (back,), undone = theirs.inverse((y,), (c,))
    assert torch.allclose(back, x, atol=close)
    assert torch.allclose(log_det, -undone, atol=close)


def test_adaptive_solvers_leave_out_rows_that_are_not_finite() -> None:
    pytest.importorskip("torchdiffeq")
    layer = randomize(ig.ContinuousFlow((3,), ((2,),), subnet=SMOOTH, solver="dopri5"), scale=0.6).double()
    x, c = noise(5, 3), noise(5, 2, seed=1)
    (right,), right_log_det = layer((x[2:],), (c[2:],))
    x[0, 1], c[1, 0] = math.inf, math.nan
    (y,), log_det = layer((x,), (c,))
    assert torch.equal(y[2:], right)
    assert torch.equal(log_det[2:], right_log_det)
    assert bool(y[:2].isnan().all() & log_det[:2].isnan().all())
    (y,), log_det = layer((x[:0],), (c[:0],))
    assert (y.shape, log_det.shape) == ((0, 3), (0,))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ig.NumericsError, match="larger tolerance"):
        layer((x[2:],), (c[2:],))


def test_without_torchdiffeq_its_solvers_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ig.DependencyError, match="pip install torchdiffeq"):
        ig.ContinuousFlow((3,), subnet=SMOOTH, solver="dopri5")
    assert ig.ContinuousFlow((3,), subnet=SMOOTH)((torch.zeros(2, 3),))[1].shape == (2,)


def test_the_estimated_trace_has_no_bias_and_cancels() -> None:
    flow = ig.ContinuousFlow((3,), subnet=Linear, steps=4, trace="estimate").double().eval()
    x = noise(1, 3).expand(100_000, 3)
    (y,), log_det = flow((x,))
    truth = flow.net.module.matrix.trace()
    error = log_det.std() / math.sqrt(100_000)
    assert abs(log_det.mean() - truth) < 4 * error < 0.1 * abs(truth)
    assert (log_det + flow.inverse((y,))[1]).abs().max() < 1e-12
    assert torch.equal(log_det, flow((x,))[1])
    flow.reseed(1)
    assert not torch.equal(log_det, flow((x,))[1])


def test_it_trains_and_starts_as_the_identity() -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(1, name="c")
    node = ig.Node(x, ig.ContinuousFlow, {"subnet": SMOOTH, "steps": 4}, conditions=c, name="ode")
    flow = ig.Flow(ig.Graph(x, node, c))
    data, label = noise(64, 2).float() * 0.5 + 1, torch.zeros(64, 1)
    z, log_det = flow.graph(data, label)
    assert torch.equal(z, data)
    assert not log_det.any()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = flow.loss(data, label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_autocast_does_not_reach_into_the_solver() -> None:
    flow = randomize(ig.ContinuousFlow((3,), subnet=SMOOTH, steps=8))
    x = noise(4, 3).float()
    expected, log_det = flow((x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, same = flow((x,))
    assert torch.equal(inside[0], expected[0])
    assert torch.equal(log_det, same)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"steps": 0}, ig.GraphError, "steps must be at least 1"),
        ({"steps": 1.5}, ig.ArgumentError, "steps must be an int"),
        ({"time": math.inf}, ig.GraphError, "time must be positive and finite"),
        ({"trace": "guess"}, ig.GraphError, "'exact' or 'estimate'"),
        ({"solver": "rk5"}, ig.GraphError, "one of 'rk4', 'dopri5'"),
        ({"tolerance": 1e-8}, ig.GraphError, "takes equal steps: give their number"),
        ({"solver": "dopri5", "steps": 8}, ig.GraphError, "chooses its steps: give tolerance"),
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.ContinuousFlow((3,), **{"subnet": SMOOTH, **args})


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch's forward mode itself
@pytest.mark.parametrize("trace", ["exact", "estimate"])
@pytest.mark.parametrize("inverse", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(trace: Any, inverse: bool) -> None:
    """``torch.func`` refuses to run where hooks pack what autograd saves."""
    flow = ig.ContinuousFlow((3,), ((2,),), subnet=ig.nets.ResidualMLP(4), steps=2, trace=trace).double()
    flow.eval()
    ig.testing.randomize(flow)
    call = flow.inverse if inverse else flow
    x, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)

    def loss(x: Tensor, c: Tensor) -> Tensor:
        (y,), log_det = call((x,), (c,))
        return y.square().sum() + log_det.sum()

    found = []
    for run in (loss, functools.partial(checkpoint, loss, use_reentrant=False)):
        x, c = x.detach().requires_grad_(), c.detach().requires_grad_()
        found.append(torch.autograd.grad(run(x, c), (x, c, *flow.parameters())))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*found, strict=True))


def test_an_empty_batch_is_estimated_too() -> None:
    args = {"subnet": ig.nets.ResidualMLP(4), "steps": 1, "trace": "estimate"}
    x = ig.InputNode(3, name="x")
    h = ig.Node(ig.Node(x, ig.ContinuousFlow, args), ig.Residual, {"hidden": 4, "log_det": "estimate"})
    flow = ig.Flow(ig.Graph(x, h))
    assert flow.sample(0).shape == (0, 3)
    assert flow.log_prob(torch.zeros(0, 3)).shape == (0,)


class Normalized(nn.Sequential):
    """Vector field with a BatchNorm."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.Linear(channels_in, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, channels_out))


@pytest.mark.parametrize("trace", ["exact", "estimate"])
def test_batch_statistics_are_refused_and_running_ones_are_not(trace: Any) -> None:
    flow = ig.ContinuousFlow((3,), subnet=Normalized, trace=trace, steps=20).double()
    x = noise(5, 3)
    with pytest.raises(ig.GraphError, match=r"(?s)a BatchNorm in train\(\).*depend on the others.*call .eval\(\)"):
        flow((x,))
    flow.eval()
    (y,), log_det = flow((x,))
    (back,), undone = flow.inverse((y,))
    assert torch.allclose(back, x, atol=1e-7)
    assert torch.allclose(log_det, -undone, atol=1e-7)
