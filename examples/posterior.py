"""A posterior from a simulator: train, look at one observation, and check the calibration. Takes a minute or two."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from options import positive

import invgraph as ig

NAMES = ("stiffness", "damping", "kicks")
LOW, HIGH = torch.tensor([0.5, 0.1, 0.1]), torch.tensor([4.0, 1.5, 1.0])  # the ends of the uniform prior


def prior(count: int) -> torch.Tensor:
    return LOW + (HIGH - LOW) * torch.rand(count, 3)


def simulate(theta: torch.Tensor, steps: int = 100, step: float = 0.1) -> torch.Tensor:
    """Position of a damped spring that is kicked at random, seen with noise: (N, 3) -> series (N, 1, steps)."""
    stiffness, damping, kicks = theta.T
    x, v, seen = torch.ones(len(theta)), torch.zeros(len(theta)), []
    for _ in range(steps):
        v = v - step * (stiffness * x + damping * v) + step**0.5 * kicks * torch.randn(len(theta))
        x = x + step * v
        seen.append(x + 0.05 * torch.randn(len(theta)))
    return torch.stack(seen, 1).unsqueeze(1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=positive, default=10_000, help="number of training pairs")
    parser.add_argument("--epochs", type=positive, default=25, help="maximum number of epochs")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the pictures")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    theta = prior(args.simulations)
    series = simulate(theta)
    summary = ig.nets.SeriesSummary(1, 100, features=8)
    flow = ig.recipes.spline_flow(3, (1, 100), data=theta, conditions=series, summary=summary, bounds=(LOW, HIGH))
    ig.inference.fit(flow, theta, series, epochs=args.epochs, patience=10, late_decay=0, progress=True)
    truth = torch.tensor([2.0, 0.5, 0.4])
    posterior = flow.given(simulate(truth.unsqueeze(0))[0])
    limits = list(zip(LOW.tolist(), HIGH.tolist(), strict=True))
    ig.inference.corner(posterior.sample((20_000,)), NAMES, truth, limits).savefig(args.out / "posterior_corner.png")
    fresh = prior(1000)
    result = ig.inference.calibrate(flow, fresh, simulate(fresh), draws=199)
    ig.inference.draw_calibration(result, NAMES).savefig(args.out / "posterior_calibration.png")
    grid = torch.cartesian_prod(torch.linspace(*limits[0], 150), torch.linspace(*limits[1], 150), truth[2:])
    with torch.no_grad():
        density = posterior.log_prob(grid).exp().view(150, 150)
    plt.imsave(args.out / "posterior_density.png", density.numpy(), origin="lower", cmap="Blues")


if __name__ == "__main__":
    main()
