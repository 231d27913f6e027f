"""Draw the pictures of the catalogue into ``images/``; run it with ``python docs/catalogue/draw.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize

_FOLDER = Path(__file__).parent / "images"
_ACROSS, _DOWN = "#2962a8", "#c8502d"
_MLP = ig.nets.MLP(hidden=16)
_SMOOTH = ig.nets.ResidualMLP(hidden=16)
Panel = tuple[str, Callable[[Tensor], Tensor]]


def layer(cls: Any, *, scale: float = 1.2, seed: int = 0, **args: Any) -> Callable[[Tensor], Tensor]:
    """Return a layer on vectors of two elements, with random weights, as a function."""
    torch.manual_seed(seed)
    module = randomize(cls((2,), **args), seed=seed + 1, scale=scale).double()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module((x,))[0][0]

    return run


def lines() -> list[tuple[str, Tensor]]:
    """Return the lines of a square grid, each as a color and its points."""
    along, ticks = torch.linspace(-2, 2, 201, dtype=torch.float64), torch.linspace(-2, 2, 13, dtype=torch.float64)
    across = [(_ACROSS, torch.stack((along, tick.expand(201)), dim=1)) for tick in ticks]
    down = [(_DOWN, torch.stack((tick.expand(201), along), dim=1)) for tick in ticks]
    return across + down


def grids(name: str, panels: Sequence[Panel]) -> None:
    """Draw a grid and its image under each map."""
    count = len(panels) + 1
    figure, axes = plt.subplots(1, count, figsize=(1.75 * count, 2.0), layout="constrained")
    for axis, (title, run) in zip(axes, [("a grid", lambda x: x), *panels], strict=True):
        for colour, points in lines():
            axis.plot(*run(points).t(), color=colour, linewidth=0.6)
        _finish(axis, title)
        axis.set_aspect("equal", adjustable="datalim")
    _save(figure, name)


def _finish(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])


def _save(figure: Any, name: str) -> None:
    _FOLDER.mkdir(exist_ok=True)
    figure.savefig(_FOLDER / f"{name}.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


def structures() -> None:
    """Draw a grid under each structure."""
    affine = ig.Affine(clamp=1.0)
    grids(
        "structures",
        [
            ("Coupling, one side", layer(ig.Coupling, transform=affine, subnet=_MLP, sides=1)),
            ("Coupling", layer(ig.Coupling, transform=affine, subnet=_MLP)),
            ("AllInOne", layer(ig.AllInOne, transform=affine, subnet=_MLP)),
            ("Autoregressive", layer(ig.Autoregressive, transform=affine, hidden=16, scale=2.0)),
            ("Elementwise", layer(ig.Elementwise, transform=affine)),
        ],
    )


def transforms() -> None:
    """Draw each transform as a curve, for three draws of its parameters."""
    shown: list[tuple[ig.Transform, tuple[float, float]]] = [
        (ig.Additive(), (-4, 4)),
        (ig.Affine(clamp=1.0), (-4, 4)),
        (ig.LinearSpline(bins=6), (-4, 4)),
        (ig.QuadraticSpline(bins=6), (-4, 4)),
        (ig.RationalQuadraticSpline(bins=6), (-4, 4)),
        (ig.MixtureCDF(components=4), (-4, 4)),
        (ig.Bernstein(degree=8), (-4, 4)),
        (ig.Sigmoid(), (-4, 4)),
        (ig.Logit(), (0.01, 0.99)),
        (ig.Softplus(), (-4, 4)),
    ]
    figure, axes = plt.subplots(2, 5, figsize=(8.75, 3.7), layout="constrained")
    for axis, (transform, (low, high)) in zip(axes.flat, shown, strict=True):
        x = torch.linspace(low, high, 401, dtype=torch.float64)[:, None]
        for seed, colour in enumerate((_ACROSS, _DOWN, "#6a8f3c") if transform.params_per_element else (_ACROSS,)):
            generator = torch.Generator().manual_seed(seed)
            params = 1.5 * torch.randn(1, transform.params_per_element, 1, generator=generator, dtype=torch.float64)
            y, _ = transform.forward(x, params.expand(len(x), -1, -1))
            axis.plot(x[:, 0], y[:, 0], color=colour, linewidth=1)
        _finish(axis, type(transform).__name__)
    _save(figure, "transforms")


def linear() -> None:
    """Draw a grid under linear maps of two channels."""
    grids(
        "linear",
        [
            ("Permute", layer(ig.Permute, order=(1, 0))),
            ("Orthogonal", layer(ig.Orthogonal, seed=1)),
            ("FixedLinear", layer(ig.FixedLinear, matrix=[[1.0, 0.6], [0.0, 0.8]])),
            ("Conv1x1", layer(ig.Conv1x1, scale=0.7)),
            ("Householder", layer(ig.Householder, reflections=1, scale=0.3)),
            ("LowRankLinear", layer(ig.LowRankLinear, rank=1)),
        ],
    )


def continuous() -> None:
    """Draw a grid under maps in which every output depends on every input."""
    grids(
        "continuous",
        [
            ("Residual", layer(ig.Residual, hidden=8, layers=1, lipschitz=0.98, scale=2.5, seed=1)),
            ("four Residuals", _stack(ig.Residual, 4, hidden=8, layers=1, lipschitz=0.98, scale=2.5)),
            ("ContinuousFlow", layer(ig.ContinuousFlow, subnet=_SMOOTH, steps=32, scale=1.0, seed=3)),
            ("PatchAutoregressive", layer(ig.PatchAutoregressive, transform=ig.Affine(clamp=1.0), patch=1, scale=2.0)),
        ],
    )


def _stack(cls: Any, count: int, **args: Any) -> Callable[[Tensor], Tensor]:
    layers = [layer(cls, seed=seed, **args) for seed in range(count)]

    def run(x: Tensor) -> Tensor:
        for each in layers:
            x = each(x)
        return x

    return run


def others() -> None:
    """Draw a grid under scalings, samples of a mixture, and integers with noise."""
    batch = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = ig.ActNorm((2,)).double()
    norm.initialize(batch * torch.tensor([2.0, 0.5], dtype=torch.float64) + 1)
    mixture = randomize(ig.GaussianMixture((2,), ((3,),), spread=2.5, seed=2), scale=0.8).double()
    dequantize = ig.Dequantize((1,), levels=4)
    figure, axes = plt.subplots(1, 4, figsize=(8.75, 2.1), layout="constrained")
    with torch.no_grad():
        for colour, points in lines():
            axes[0].plot(*norm((points,))[0][0].t(), color=colour, linewidth=0.6)
            axes[1].plot(*layer(ig.LearnedScaling)(points).t(), color=colour, linewidth=0.6)
        for k, colour in enumerate((_ACROSS, _DOWN, "#6a8f3c")):
            choice = torch.eye(3, dtype=torch.float64)[k].expand(500, 3)
            (x,), _ = mixture.inverse((batch,), (choice,))
            axes[2].scatter(*x.t(), s=1.5, color=colour)
        counts = torch.repeat_interleave(torch.arange(4.0), torch.tensor([600, 1500, 900, 300]))[:, None]
        (y,), _ = dequantize((counts,))
        axes[3].hist(y[:, 0].numpy(), bins=48, range=(0, 1), color=_ACROSS)
    for axis, title in zip(axes, ("ActNorm", "LearnedScaling", "GaussianMixture", "Dequantize"), strict=True):
        _finish(axis, title)
    for axis in axes[:3]:
        axis.set_aspect("equal", adjustable="datalim")
    _save(figure, "others")


def shapes() -> None:
    """Draw an image and the channels that each layer makes of it, as tiles."""
    across, up = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
    disc = torch.sigmoid(30 * (0.6 - (across**2 + up**2).sqrt()))
    image = (0.25 * across + 0.5 + 0.4 * disc + 0.15 * torch.sin(12 * up) * (1 - disc))[None, None]
    shown: list[tuple[str, Any]] = [
        ("Squeeze", ig.Squeeze((1, 32, 32))),
        ("Haar", ig.Haar((1, 32, 32))),
        ("DCT, blocks of 4", ig.DCT((1, 32, 32), block=4)),
        ("DCT, whole axes", ig.DCT((1, 32, 32))),
    ]
    figure, axes = plt.subplots(1, 5, figsize=(8.75, 2.1), layout="constrained")
    axes[0].imshow(image[0, 0], cmap="Greys_r")
    _finish(axes[0], "an image")
    for axis, (title, module) in zip(axes[1:], shown, strict=True):
        with torch.no_grad():
            channels = module((image,))[0][0][0]
        edge = round(len(channels) ** 0.5)
        spread = channels.flatten(1).abs().amax(1).clamp(min=0.05).view(-1, 1, 1)
        tiles = (channels / spread).unflatten(0, (edge, edge)).transpose(1, 2).flatten(0, 1).flatten(1)
        if edge == 1:
            tiles = channels[0].sign() * channels[0].abs().sqrt()
        axis.imshow(tiles, cmap="Greys_r")
        _finish(axis, title)
    _save(figure, "shapes")


def nets() -> None:
    """Draw which inputs the central output of each subnet depends on."""
    shown: list[tuple[str, Any]] = [
        ("ConvNet", ig.nets.ConvNet(hidden=8)),
        ("ResidualConvNet", ig.nets.ResidualConvNet(hidden=8)),
        ("UNet", ig.nets.UNet(hidden=8, levels=3)),
        ("GatedAttention", ig.nets.GatedAttention(hidden=8, heads=2)),
        ("ViT, patches of 4", ig.nets.ViT(width=16, depth=2, heads=2, patch=4)),
    ]
    figure, axes = plt.subplots(1, 5, figsize=(8.75, 2.1), layout="constrained")
    for axis, (title, factory) in zip(axes, shown, strict=True):
        torch.manual_seed(0)
        net = randomize(factory.build((4, 32, 32), (), 4), scale=1.0)
        x = torch.randn(64, 4, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        (gradient,) = torch.autograd.grad(net(x)[:, :, 16, 16].sum(), x)
        seen = gradient.abs().mean((0, 1))
        axis.imshow((seen / seen.max()).clamp(min=1e-6).log10(), cmap="Greys", vmin=-4, vmax=0)
        _finish(axis, title)
    _save(figure, "nets")


if __name__ == "__main__":
    for draw in (structures, transforms, linear, continuous, others, shapes, nets):
        draw()
