"""Data and parameters for checks, drawn from a generator of their own."""

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

    Freshly built subnets end in a layer of zeros, so that a coupling starts as the identity: a check of the identity
    shows little. The noise is divided by the root of a weight's fan-in, so that a network's outputs stay of the order
    of ``scale`` whatever its width.

    Arguments:
        module: a layer, a graph, or any module; it is changed in place.
        seed: of the noise; a generator of its own draws it.
        scale: standard deviation of the noise on biases.

    Raises:
        ArgumentError: an argument has the wrong type.
        GraphError: the seed does not fit into 64 bits.

    Example:
        >>> import invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> layer = ig.testing.randomize(layer, seed=1)
        >>> all(bool(parameter.any()) for parameter in layer.parameters())
        True
    """
    where = "testing.randomize"
    if not isinstance(module, nn.Module):
        raise ArgumentError(where, type(module).__name__, "expected a layer, a graph, or any module, already built")
    factor = require_amount(where, "scale", scale)
    source = generator(require_seed(where, seed))
    for parameter in module.parameters():
        noise = normal(parameter.shape, source)
        fan_in = parameter.numel() / parameter.shape[0] if parameter.ndim > 1 else 1.0
        parameter.add_((noise * (factor / math.sqrt(fan_in))).to(parameter))
    return module


def draw(shapes: tuple[Shape, ...], batch: int, like: Tensor, seed: int) -> Tensors:
    """Standard normal tensors of these shapes, of the dtype and on the device of ``like``."""
    source = generator(seed)
    return tuple(normal((batch, *shape), source).to(like) for shape in shapes)
