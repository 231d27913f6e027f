"""Kinds of portraits: a map of the plane, a curve, channels of an image, a change of order, a subnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize
from portraits.canvas import Canvas, Map, Portrait


def example_image(size: int = 32) -> Tensor:
    """Return a disk over a slope and waves."""
    across, up = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="xy")
    disk = torch.sigmoid(30 * (0.6 - (across**2 + up**2).sqrt()))
    return (0.25 * across + 0.5 + 0.4 * disk + 0.15 * torch.sin(12 * up) * (1 - disk)).double()


def random_layer(cls: Any, shape: tuple[int, ...], *, scale: float = 1.2, seed: int = 0, **args: Any) -> ig.Invertible:
    """Return a layer of float64 in evaluation mode, with random weights."""
    torch.manual_seed(seed)
    return randomize(cls((shape,), **args), seed=seed + 1, scale=scale).double().eval()


def as_function(layer: ig.Invertible) -> Map:
    """Return a layer as a function of tensors, without gradients."""

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return layer((x,))[0][0]

    return run


def jacobian(layer: ig.Invertible, size: int) -> Tensor:
    """Return the Jacobian of a layer of vectors at one point."""
    x = torch.linspace(-1, 1, size).double()
    return torch.autograd.functional.jacobian(lambda v: layer((v[None],))[0][0][0], x)


def grid(
    cls: Any, caption: str, *, title: str = "dy / dx", wide: dict[str, Any] | None = None, **args: Any
) -> Portrait:
    """Return the portrait of a map of vectors: a grid before and after it, and its Jacobian for eight elements.

    Arguments:
        cls: Class of the layer.
        caption: What the picture shows.
        title: Title of the Jacobian. Default: ``"dy / dx"``.
        wide: Arguments for eight elements that differ from those for two. Default: None.
        args: Arguments of the layer, and ``seed`` and ``scale`` of its random weights.
    """

    def draw(canvas: Canvas) -> None:
        canvas.grid(0, "x", lambda x: x)
        canvas.grid(1, "y", as_function(random_layer(cls, (2,), **args)))
        canvas.matrix(2, title + ", 8 elements", jacobian(random_layer(cls, (8,), **{**args, **(wide or {})}), 8))

    return Portrait(3, caption, draw)


def curve(transform: ig.Transform, low: float = -4.0, high: float = 4.0, *, scale: float = 1.5) -> Portrait:
    """Return the portrait of a transform of numbers: its curve, that of its inverse, and its slope."""
    count = 3 if transform.params_per_element else 1

    def draw(canvas: Canvas) -> None:
        for at, title in enumerate(("y = T(x)", "x = T⁻¹(y)", "log dy/dx")):
            canvas.panel(at, title, square=False)
        canvas.axes[2].axhline(0, color=canvas.theme.faint, linewidth=0.6)
        x = torch.linspace(low, high, 401).double()[:, None]
        for seed, color in zip(range(count), canvas.theme.series, strict=False):
            generator = torch.Generator().manual_seed(seed)
            params = scale * torch.randn(1, transform.params_per_element, 1, generator=generator).double()
            y, log_slope = transform.forward(x, params.expand(len(x), -1, -1))
            back, _ = transform.inverse(y, params.expand(len(x), -1, -1))
            for curved in (y, back):
                curved[1:][(curved[1:] - curved[:-1]).abs() > 1] = torch.nan  # a jump is not part of the curve
            canvas.axes[0].plot(x[:, 0], y[:, 0], color=color, linewidth=1)
            canvas.axes[1].plot(y[:, 0], back[:, 0], color=color, linewidth=1)
            canvas.axes[2].plot(x[:, 0], log_slope.reshape(-1), color=color, linewidth=1)

    draws = "for three draws of its parameters" if count == 3 else "which has no parameters"
    return Portrait(3, f"The transform, its inverse and the logarithm of its slope, {draws}.", draw)


def tiles(cls: Any, caption: str, **args: Any) -> Portrait:
    """Return the portrait of a layer that makes channels of an image, each scaled separately."""

    def draw(canvas: Canvas) -> None:
        image = example_image()
        layer = cls(((1, 32, 32),), **args).double()
        with torch.no_grad():
            channels = layer((image[None, None],))[0][0][0]
        edge = round(len(channels) ** 0.5)
        spread = channels.flatten(1).abs().amax(1).clamp(min=0.05).view(-1, 1, 1)
        canvas.image(0, "x: one channel", image)
        canvas.image(
            1,
            f"y: {len(channels)} channels",
            (channels / spread).unflatten(0, (edge, edge)).transpose(1, 2).flatten(0, 1).flatten(1),
        )

    return Portrait(2, caption, draw)


def order(make: Callable[[], ig.Invertible], by: str, caption: str) -> Portrait:
    """Return the portrait of a layer that only moves elements: each has a number, and a color ``by`` where it is.

    ``by`` is ``"value of x"``, ``"value of y"``, ``"channel of x"`` or ``"channel of y"``.
    """

    def draw(canvas: Canvas) -> None:
        layer = make()
        sizes = [torch.Size(shape).numel() for shape in layer.in_shapes]
        parts = torch.arange(sum(sizes)).double().split(sizes)
        xs = [part.view(1, *shape) for part, shape in zip(parts, layer.in_shapes, strict=True)]
        with torch.no_grad():
            ys, _ = layer(tuple(xs))
        values = [value[0] for value in (xs if by.endswith("x") else ys)]
        groups = values if by.startswith("value") else [channel for value in values for channel in value]
        colors = {int(number): k for k, group in enumerate(groups) for number in group.flatten()}
        for at, (name, side) in enumerate((("x", xs), ("y", ys))):
            shapes = ", ".join(str(tuple(value.shape[1:])).replace(" ", "") for value in side)
            canvas.cells(at, f"{name}: {shapes}", [value[0] for value in side], colors)

    return Portrait(2, caption, draw)


def sight(factory: Any) -> Portrait:
    """Return the portrait of a subnet of images: which inputs the central output depends on."""

    def draw(canvas: Canvas) -> None:
        torch.manual_seed(0)
        net = randomize(factory.build((4, 32, 32), (), 4), scale=1.0)
        x = torch.randn(32, 4, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        (gradient,) = torch.autograd.grad(net(x)[:, :, 16, 16].sum(), x)
        seen = gradient.abs().mean((0, 1))
        shades = {"cmap": canvas.theme.shades(), "vmin": -4, "vmax": 0}
        canvas.image(0, "inputs of one output", (seen / seen.max()).clamp(min=1e-6).log10(), **shades)

    return Portrait(1, "The inputs that the central output depends on, with random weights; a logarithmic scale.", draw)


def response(factory: Any) -> Portrait:
    """Return the portrait of a subnet of vectors: outputs along a line of inputs."""

    def draw(canvas: Canvas) -> None:
        net = randomize(factory.build((1,), (), 3), seed=3, scale=1.5)
        x = torch.linspace(-3, 3, 301)[:, None]
        axis = canvas.panel(0, "three outputs of x", square=False)
        with torch.no_grad():
            for y, color in zip(net(x).t(), canvas.theme.series, strict=False):
                axis.plot(x[:, 0], y, color=color, linewidth=1)

    return Portrait(1, "Three outputs as functions of one input, with random weights.", draw)
