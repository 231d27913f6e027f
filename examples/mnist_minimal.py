"""The paper's conditional model of MNIST on one page: declare it, train it, draw its digits.

    python examples/mnist_minimal.py                                        # the paper's model: best on a GPU
    python examples/mnist_minimal.py --blocks 8 --hidden 256 --steps 1500   # a small one: a minute or two on a CPU

``mnist_cinn.py`` is the full program: it resumes, runs in several processes, averages the weights, measures.

L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019, section 4.1,
https://arxiv.org/abs/1907.02392
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from digits import data, measure
from options import positive

import invgraph as ig

NOISE = 0.15
"""Standard deviation of the noise on pixels from 0 to 1, as in the authors' code. Without noise the likelihood of
borders that are always black has no upper bound, and a flow learns nothing else."""


def build(blocks: int = 24, hidden: int = 512) -> ig.Flow:
    """Coupling blocks on the flattened picture, each conditioned on the digit.

    A coupling changes one half of the pixels given the other half, then the other way round. The permutations are
    random but fixed, so that every block splits the pixels differently.

    Arguments:
        blocks: Number of coupling blocks.
        hidden: Width of the subnets' hidden layer.
    """
    image = ig.InputNode(1, 28, 28, name="image")
    digit = ig.ConditionNode(10, name="digit")
    coupling = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=hidden)}
    h = ig.Node(image, ig.Flatten, name="flatten")
    for k in range(blocks):
        h = ig.Node(h, ig.Permute, {"seed": k}, name=f"permute_{k}")
        h = ig.Node(h, ig.Coupling, coupling, conditions=digit, name=f"coupling_{k}")
    return ig.Flow(ig.Graph(inputs=image, outputs=h, conditions=digit))


def train(flow: ig.Flow, steps: int, device: str, batch: int = 128, rate: float = 1e-3) -> None:
    """Maximum likelihood: the paper's Eq. 6, in nats per pixel."""
    digits = data.load("train")
    conditions = data.condition(digits.labels)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(1, steps + 1):
        rows = torch.randint(len(conditions), (batch,))
        x = measure.noisy(digits.pixels[rows], NOISE).to(device)  # other noise each time a picture is shown
        loss = flow.loss(x, conditions[rows].to(device)) / flow.dims
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step:,} of {steps:,}: loss {loss.item():+.4f} nats per pixel", flush=True)


@torch.no_grad()
def draw(flow: ig.Flow, path: Path, device: str, rows: int = 8, temperature: float = 0.7) -> None:
    """Draw one latent code a row, decoded as each of the ten digits: a row keeps its style, a column its digit."""
    z = temperature * torch.randn(rows, flow.dims, generator=torch.Generator().manual_seed(0))
    digit = data.condition(torch.arange(10).repeat(rows)).to(device)
    x, _ = flow.graph.inverse(z.repeat_interleave(10, 0).to(device), digit)
    # The model has learned noisy pictures, so it generates noise too: take the expected picture behind it.
    x = flow.denoise(x, digit, sigma=NOISE / data.STD)
    tiles = data.to_pixels(x).cpu().view(rows, 10, 28, 28)
    page = tiles.transpose(1, 2).reshape(rows * 28, 280)
    plt.imsave(path, page.repeat_interleave(4, 0).repeat_interleave(4, 1), cmap="gray_r", vmin=0, vmax=1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=positive, default=24, help="number of coupling blocks")
    parser.add_argument("--hidden", type=positive, default=512, help="width of the subnets' hidden layer")
    parser.add_argument("--steps", type=positive, default=28_000, help="number of training steps; default: 60 epochs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_minimal.png"), help="file for the picture")
    args = parser.parse_args(argv)

    args.out.parent.mkdir(parents=True, exist_ok=True)  # before the training, which is the time to fail
    torch.manual_seed(0)
    flow = build(args.blocks, args.hidden).to(args.device)
    train(flow, args.steps, args.device)
    test = data.load("test")
    nll = measure.nll(flow, measure.noisy(test.pixels, NOISE), test.labels)
    print(f"test loss {nll - measure.CONSTANT:+.4f} nats per pixel")
    draw(flow, args.out, args.device)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
