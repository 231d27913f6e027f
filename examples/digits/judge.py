"""A small convolutional classifier of real MNIST: the judge of generated digits.

``python examples/mnist_classifier.py`` trains it (two minutes on two cores) and writes
``examples/data/mnist_judge.safetensors``, which comes with the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from digits import data

WEIGHTS = Path(__file__).parents[1] / "data" / "mnist_judge.safetensors"


def build() -> nn.Sequential:
    """The network: standardised pictures ``(B, 1, 28, 28)`` in, logits ``(B, 10)`` out."""
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
    """The trained network, ready to judge."""
    network = build()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().to(device)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, labels: Tensor, batch: int = 1000) -> float:
    """The share of standardised pictures whose label the network recognises."""
    hits = [(network(a).argmax(1) == b).sum() for a, b in zip(x.split(batch), labels.split(batch), strict=True)]
    return int(torch.stack(hits).sum()) / len(x)


def train(epochs: int, seed: int) -> nn.Sequential:
    """Trained on the real training digits, each batch shifted by up to two pixels."""
    torch.manual_seed(seed)
    digits = data.load("train")
    network = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    batch, steps = 128, epochs * (len(digits.labels) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(digits.labels), (batch,))
        x = data.standardize(digits.pixels[rows].float() / 255)
        dy, dx = (int(shift) for shift in torch.randint(-2, 3, (2,)))
        x = torch.roll(x, (dy, dx), (2, 3))
        loss = nn.functional.cross_entropy(network(x), digits.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier that judges generated digits.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    network = train(args.epochs, args.seed)
    digits = data.load("test")
    x = data.standardize(digits.pixels.float() / 255)
    print(f"accuracy on the real test digits: {accuracy(network, x, digits.labels):.2%}")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, args.out)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
