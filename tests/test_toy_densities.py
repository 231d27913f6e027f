"""Two-dimensional toy densities: flows learn them as well as zuko's do, and integrate to one."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig

STEPS, BATCH = 1500, 512


def moons(count: int, generator: torch.Generator) -> Tensor:
    """Two half circles that reach into each other."""
    angle = math.pi * torch.rand(count, generator=generator)
    second = torch.rand(count, generator=generator) < 0.5
    x = torch.where(second, 1 - torch.cos(angle), torch.cos(angle))
    y = torch.where(second, 0.5 - torch.sin(angle), torch.sin(angle))
    points = torch.stack((x - 0.5, y - 0.25), dim=1) + 0.08 * torch.randn(count, 2, generator=generator)
    return 1.5 * points


def rings(count: int, generator: torch.Generator) -> Tensor:
    """Three circles round the origin."""
    radius = 1.0 + torch.randint(3, (count,), generator=generator)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    points = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
    return points + 0.12 * torch.randn(count, 2, generator=generator)


def checkerboard(count: int, generator: torch.Generator) -> Tensor:
    """The black squares of a board of 4 x 4."""
    column = torch.randint(4, (count,), generator=generator)
    row = 2 * torch.randint(2, (count,), generator=generator) + column % 2
    places = torch.rand(count, 2, generator=generator)
    return torch.stack((column, row), dim=1) + places - 2


DENSITIES = [moons, rings, checkerboard]


def spline_flow() -> ig.Flow:
    """zuko's NSF with its default sizes: three autoregressive splines of 8 bins on [-5, 5], in turned order."""
    x = ig.InputNode(2, name="x")
    h: Any = x
    args = {"transform": ig.RationalQuadraticSpline(bins=8, bound=5.0), "hidden": 64, "layers": 2}
    for layer in range(3):
        h = ig.Node(h, ig.Autoregressive, args, name=f"spline_{layer}")
        h = ig.Node(h, ig.Permute, {"order": (1, 0)}, name=f"swap_{layer}")
    return ig.Flow(ig.Graph(x, h))


def train(model: nn.Module, log_prob: Any, density: Any, steps: int) -> None:
    """The same batches, optimizer and number of steps for each model."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = -log_prob(density(BATCH, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def integral(flow: ig.Flow, cells: int, edge: float = 7.0) -> float:
    """The midpoint rule over a square that holds all but 1e-8 of the probability, in float64."""
    centers = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2 * edge / cells) - edge
    total = 0.0
    for chunk in centers.split(32):
        points = torch.cartesian_prod(chunk, centers)
        total += flow.log_prob(points).exp().sum().item()
    return total * (2 * edge / cells) ** 2


@pytest.mark.parametrize("density", [moons, *(pytest.param(d, marks=pytest.mark.slow) for d in (rings, checkerboard))])
def test_a_flow_after_a_few_steps_integrates_to_one(density: Any) -> None:
    torch.manual_seed(0)
    flow = spline_flow()
    train(flow, flow.log_prob, density, steps=40)
    assert integral(flow.double(), cells=300) == pytest.approx(1, abs=1e-3)


STACKS: dict[str, Any] = {
    "coupling-linear": (ig.Coupling, {"transform": ig.LinearSpline(bound=5.0), "subnet": ig.nets.MLP(hidden=32)}),
    "coupling-quadratic": (ig.Coupling, {"transform": ig.QuadraticSpline(bound=5.0), "subnet": ig.nets.MLP(hidden=32)}),
    "coupling-mixture": (ig.Coupling, {"transform": ig.MixtureCDF(4, clamp=1.0), "subnet": ig.nets.MLP(hidden=32)}),
    "coupling-bernstein": (ig.Coupling, {"transform": ig.Bernstein(bound=5.0), "subnet": ig.nets.MLP(hidden=32)}),
    "masked-affine": (ig.MaskedCoupling, {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=32)}),
    "maf-affine": (ig.Autoregressive, {"transform": ig.Affine(clamp=1.0), "hidden": 32}),
}


@pytest.mark.parametrize("name", STACKS)
def test_every_kind_of_layer_integrates_to_one(name: str) -> None:
    torch.manual_seed(0)
    x = ig.InputNode(2, name="x")
    flow = ig.Flow(ig.Graph(x, ig.chain(x, STACKS[name], (ig.Conv1x1, {"seed": 1}), STACKS[name])))
    train(flow, flow.log_prob, moons, steps=40)
    cells, error = (400, 1e-3) if name == "coupling-linear" else (200, 1e-4)  # its density has jumps
    assert integral(flow.double(), cells=cells, edge=10.0) == pytest.approx(1, abs=error)


@pytest.mark.parametrize(
    "density", [pytest.param(d, marks=pytest.mark.slow if d is moons else pytest.mark.nightly) for d in DENSITIES]
)
def test_learns_as_well_as_zukos_nsf(density: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others deprecate is not our affair
        zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    theirs = zuko.flows.NSF(features=2)
    train(theirs, lambda x: theirs().log_prob(x), density, STEPS)
    torch.manual_seed(0)
    flow = spline_flow()
    train(flow, flow.log_prob, density, STEPS)
    test = density(20_000, torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, reference = flow.log_prob(test).mean().item(), theirs().log_prob(test).mean().item()
    print(f"{density.__name__}: {ours:.3f} nats, zuko {reference:.3f}")
    assert ours >= reference - 0.05
    assert integral(flow.double(), cells=1400) == pytest.approx(1, abs=1e-3)
