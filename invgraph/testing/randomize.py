"""Random data and parameters for checks, from private generators."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from invgraph.arguments import require_amount, require_seed
from invgraph.errors import ArgumentError
from invgraph.numerics.seeding import generator, normal
from invgraph.shapes import Shape, Tensors

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def randomize(module: M, seed: int = 0, scale: float = 0.3) -> M:
    """Add noise to every parameter of the module, and return it.

    The last layer of a new subnet is zero, so that couplings start as the identity, and checking the identity reveals
    little. The noise on a weight is divided by the square root of its fan-in, so that the outputs of a network are of
    the order of ``scale`` for any width.

    Arguments:
        module: Layer, graph or any other module; changed in place.
        seed: Seed of the private generator that draws the noise. Default: 0.
        scale: Standard deviation of the noise on biases. Default: 0.3.

    Returns:
        The module.

    Raises:
        ArgumentError: If an argument has the wrong type.
        GraphError: If the seed does not fit into 64 bits, or the scale is negative or not finite.

    Example:
        >>> import invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> layer = ig.testing.randomize(layer, seed=1)
        >>> all(bool(parameter.any()) for parameter in layer.parameters())
        True
    """
    where = "testing.randomize"
    if not isinstance(module, nn.Module):
        raise ArgumentError(where, type(module).__name__, "expected an nn.Module instance, such as a layer or a graph")
    factor = require_amount(where, "scale", scale)
    source = generator(require_seed(where, seed))
    for parameter in module.parameters():
        noise = normal(parameter.shape, source)
        fan_in = parameter.numel() / parameter.shape[0] if parameter.ndim > 1 else 1.0
        parameter.add_((noise * (factor / math.sqrt(fan_in))).to(parameter))
    return module


def draw(shapes: tuple[Shape, ...], batch: int, like: Tensor, seed: int) -> Tensors:
    """Draw standard normal tensors of these shapes, with the dtype and device of ``like``."""
    source = generator(seed)
    return tuple(normal((batch, *shape), source).to(like) for shape in shapes)
