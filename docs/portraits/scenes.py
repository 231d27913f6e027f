"""Portraits of layers that are like no other."""

from __future__ import annotations

import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize
from portraits.canvas import Canvas
from portraits.kinds import as_function, example_image, random_layer


def masked(canvas: Canvas) -> None:
    """Draw an image, its image under one side of a checkerboard, and the difference."""
    layer = random_layer(
        ig.MaskedCoupling, (1, 12, 12), transform=ig.Affine(clamp=1.0), subnet=ig.nets.ConvNet(8), sides=1
    )
    x = example_image(12)
    y = as_function(layer)(x[None, None])[0, 0]
    canvas.image(0, "x", x)
    canvas.image(1, "y", y)
    canvas.matrix(2, "|y - x|", y - x)


def _cloud(count: int = 400) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).double()


def _same_frame(canvas: Canvas, width: float, height: float, center: tuple[float, float] = (0.0, 0.0)) -> None:
    for axis in canvas.axes:
        axis.set_aspect("equal", adjustable="box")
        axis.set(
            xlim=(center[0] - width / 2, center[0] + width / 2), ylim=(center[1] - height / 2, center[1] + height / 2)
        )


def normalized(canvas: Canvas) -> None:
    """Draw the batch that initializes ``ActNorm``, before and after."""
    x = _cloud() * torch.tensor([2.0, 0.5]) + torch.tensor([3.0, 1.5])
    layer = ig.ActNorm((2,)).double()
    layer.initialize((x,))
    canvas.points(0, "the first batch", [x])
    canvas.points(1, "y", [as_function(layer)(x)])
    _same_frame(canvas, 13.0, 10.0, center=(2.5, 0.5))


def standardized(canvas: Canvas) -> None:
    """Draw data before and after ``Standardize``."""
    x = _cloud() * torch.tensor([2.0, 0.5]) + torch.tensor([3.0, 1.5])
    layer = ig.Standardize(((2,),), mean=(3.0, 1.5), std=(2.0, 0.5)).double()
    canvas.points(0, "data", [x])
    canvas.points(1, "y", [as_function(layer)(x)])
    _same_frame(canvas, 13.0, 10.0, center=(2.5, 0.5))


def boxed(canvas: Canvas) -> None:
    """Draw points in a box, and where ``Box`` puts them."""
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)).double() * 4 - 2
    canvas.points(0, "x in [-2, 2]²", [x])
    canvas.points(1, "y in the whole plane", [as_function(ig.Box(((2,),), low=-2.0, high=2.0).double())(x)])


def mixture(canvas: Canvas) -> None:
    """Draw three components of a mixture, and their latents."""
    layer = randomize(ig.GaussianMixture((2,), ((3,),), spread=2.5, seed=2), scale=0.8).double()
    z = _cloud(300)
    choices = [torch.eye(3).double()[k].expand(300, 3) for k in range(3)]
    with torch.no_grad():
        xs = [layer.inverse((z,), (choice,))[0][0] for choice in choices]
        zs = [layer((x[k::3],), (choice[k::3],))[0][0] for k, (x, choice) in enumerate(zip(xs, choices, strict=True))]
    canvas.points(0, "x: three components", xs)
    canvas.points(1, "y", zs)


def dequantized(canvas: Canvas) -> None:
    """Draw counts of integers, and the density of the dequantized ones."""
    counts = torch.tensor([600, 1500, 900, 300])
    axis = canvas.panel(0, "integers 0 to 3", square=False)
    axis.bar(range(4), counts, width=0.12, color=canvas.theme.series[0])
    layer = ig.Dequantize((1,), levels=4)
    with torch.no_grad():
        (y,), _ = layer((torch.repeat_interleave(torch.arange(4.0), counts)[:, None],))
    axis = canvas.panel(1, "y in [0, 1)", square=False)
    axis.hist(y[:, 0].numpy(), bins=48, range=(0, 1), color=canvas.theme.series[0])


def inverse(canvas: Canvas) -> None:
    """Draw a grid, its image, and the image's image under the inverse."""
    layer = random_layer(ig.Autoregressive, (2,), transform=ig.Affine(clamp=1.0), hidden=16, scale=2.0)
    there, back = as_function(layer), as_function(ig.Inverse(layer))
    canvas.grid(0, "x", lambda x: x)
    canvas.grid(1, "y = layer(x)", there)
    canvas.grid(2, "Inverse(layer)(y)", lambda x: back(there(x)))


def areas(canvas: Canvas) -> None:
    """Draw two elements under a map that preserves volumes."""
    layer = random_layer(ig.Coupling, (4,), transform=ig.VolumePreserving(), subnet=ig.nets.MLP(hidden=16), sides=1)
    run = as_function(layer)
    head = torch.tensor([0.7, -0.4]).double()
    canvas.grid(0, "two elements", lambda x: x)
    canvas.grid(1, "the same area", lambda x: run(torch.cat((x, head.expand(len(x), 2)), 1))[:, :2])
    _same_frame(canvas, 9.0, 9.0)
