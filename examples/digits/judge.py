"""Small convolutional classifier, trained on clean and noisy MNIST digits, that judges generated digits.

``python examples/mnist_cinn.py judge`` trains it (a minute on two cores) and writes
``examples/data/mnist_judge.safetensors``, which comes with the repository.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from digits import data

WEIGHTS = Path(__file__).parents[1] / "data" / "mnist_judge.safetensors"
STRONGEST_NOISE = 0.25


def build() -> nn.Sequential:
    """Build the network, from standardized pictures ``(B, 1, 28, 28)`` to logits ``(B, 10)``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def load(device: torch.device | str = "cpu") -> nn.Sequential:
    """Load the trained network in evaluation mode."""
    network = build()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().to(device)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, labels: Tensor, batch: int = 1000) -> float:
    """Return the fraction of standardized pictures that the network classifies correctly."""
    hits = [(network(a).argmax(1) == b).sum() for a, b in zip(x.split(batch), labels.split(batch), strict=True)]
    return int(torch.stack(hits).sum()) / len(x)


def train(epochs: int = 6, seed: int = 0, report: bool = True) -> nn.Sequential:
    """Train the network on the training digits, shifted by up to two pixels, with noise of random strength.

    The noise goes up to a quarter of the pixel range, because the digits of a flow have the noise it was trained with,
    and noise should not affect the verdict.
    """
    torch.manual_seed(seed)
    digits = data.load("train")
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    batch, steps = 128, epochs * (len(digits.labels) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(digits.labels), (batch,))
        pixels = digits.pixels[rows].float() / 255
        dy, dx = (int(shift) for shift in torch.randint(-2, 3, (2,)))
        pixels = torch.roll(pixels, (dy, dx), (1, 2))
        pixels = pixels + torch.randn_like(pixels) * torch.rand(batch, 1, 1) * STRONGEST_NOISE
        loss = nn.functional.cross_entropy(network(data.standardize(pixels)), digits.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if report and step % 200 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return network.eval()


def save(network: nn.Module, path: Path = WEIGHTS) -> None:
    """Save the weights for :func:`load`."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
