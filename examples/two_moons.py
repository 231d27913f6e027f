"""A conditional flow on one page: two moons, and a label that says which one. Trains for seconds, draws a picture."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from options import positive

import invgraph as ig

NOISE, WINDOW = 0.05, (-1.4, 2.4, -0.85, 1.35)


def arcs(angle: torch.Tensor) -> torch.Tensor:
    """Points of the upper and of the lower half circle at these angles, shape ``(..., 2 moons, 2)``."""
    upper = torch.stack([angle.cos(), angle.sin()], -1)
    return torch.stack([upper, torch.tensor([1.0, 0.5]) - upper], -2)


def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy points, and the moon of each as a one-hot vector."""
    moon = torch.randint(2, (count,))
    points = arcs(math.pi * torch.rand(count))[torch.arange(count), moon] + NOISE * torch.randn(count, 2)
    return points, torch.eye(2)[moon]


def true_log_prob(points: torch.Tensor, moons: torch.Tensor) -> torch.Tensor:
    """Log-density that the points come from, as a mean over 500 angles: on average no model does better."""
    centers = arcs(math.pi * (torch.arange(500) + 0.5) / 500)[:, moons.argmax(1)]
    return (-0.5 * ((points - centers) / NOISE).square().sum(-1)).exp().mean(0).log() - math.log(2 * math.pi * NOISE**2)


def build() -> ig.Flow:
    """Six affine couplings; the rotations between them mix the two coordinates."""
    point, moon = ig.InputNode(2, name="point"), ig.ConditionNode(2, name="moon")
    coupling = {"transform": ig.Affine(clamp=1.9), "subnet": ig.nets.MLP(hidden=64, layers=2)}
    h: ig.InputNode | ig.Node = point
    for _ in range(6):
        h = ig.Node(h, ig.Orthogonal)
        h = ig.Node(h, ig.Coupling, coupling, conditions=moon)
    return ig.Flow(ig.Graph(inputs=point, outputs=h, conditions=moon))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a flow on two moons and draw it.")
    parser.add_argument("--steps", type=positive, default=600, help="number of training steps")
    parser.add_argument("--out", type=Path, default=Path("runs/two_moons.png"), help="file for the picture")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    flow = build()
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for _ in range(args.steps):
        loss = -flow.log_prob(*draw(256)).mean()  # maximum likelihood
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    points, moons = draw(4000)
    samples = flow.sample(2000, torch.eye(2)).flatten(0, 1)  # (2000, 2 moons, 2) -> (4000, 2), the moons in turn
    grid = torch.cartesian_prod(torch.linspace(*WINDOW[2:], 220), torch.linspace(*WINDOW[:2], 380)).flip(1)
    with torch.no_grad():
        reached, best = flow.log_prob(points, moons).mean(), true_log_prob(points, moons).mean()
        density = torch.stack([flow.log_prob(grid, moon.expand(len(grid), 2)).exp() for moon in torch.eye(2)]).mean(0)
    figure, axes = plt.subplots(1, 3, figsize=(10.8, 2.5), layout="constrained")
    axes[0].scatter(*points.T, c=moons[:, 1], s=5, linewidth=0, cmap="coolwarm")
    axes[1].scatter(*samples.T, c=torch.arange(4000) % 2, s=5, linewidth=0, cmap="coolwarm")
    axes[2].imshow(density.view(220, 380).numpy(), origin="lower", extent=WINDOW, cmap="Greys")
    for panel, title in zip(axes, ("held-out data", "samples", "density"), strict=True):
        panel.set(title=title, xlim=WINDOW[:2], ylim=WINDOW[2:], xticks=[], yticks=[], aspect="equal")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=170)
    print(f"held-out log-likelihood {reached:.3f} nats, {best:.3f} at best; picture: {args.out}")


if __name__ == "__main__":
    main()
