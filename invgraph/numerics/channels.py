"""What several layers do along the channels: split them in two, mix them by a matrix, measure them."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from invgraph.arguments import as_number
from invgraph.errors import GraphError, NumericsError
from invgraph.numerics.seeding import normal
from invgraph.shapes import Shape


def split_sizes(where: str, shape: Shape, split: object) -> list[int]:
    """Channels of the two parts of an input of this shape; ``split`` is a fraction or the channels of the first."""
    channels = shape[0]
    number = as_number(where, "split", split)
    given = f"split={number} of {channels} channels"
    if channels < 2:
        raise GraphError(where, f"input of shape {shape}", "a coupling needs at least 2 channels")
    if isinstance(number, float) and not 0 < number < 1:
        raise GraphError(where, given, "split must be a fraction in (0, 1) or a number of channels")
    first = int(channels * number) if isinstance(number, float) else number
    if not 0 < first < channels:
        raise GraphError(where, given, f"parts of {first} and {channels - first}: both need at least one channel")
    return [first, channels - first]


def mix(x: Tensor, matrix: Tensor) -> Tensor:
    """``matrix @ x`` at every position, in the data's dtype even under autocast."""
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):  # meta tensors have no autocast
        if x.ndim == 2:
            return x @ matrix.t()
        mixed: Tensor = (matrix @ x.flatten(2)).unflatten(2, x.shape[2:])
        return mixed


def channel_moments(where: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a batch, for layers that start by normalising one.

    Raises:
        NumericsError: a channel has a single number, or is constant, so that it has no scale.
    """
    per_channel = x.transpose(0, 1).flatten(1)
    given = f"batch of shape {tuple(x.shape)}"
    if per_channel.shape[1] < 2:
        raise NumericsError(where, given, "a standard deviation needs at least two numbers per channel")
    mean, std = per_channel.mean(1), per_channel.std(1, correction=0)
    if not bool((std > 0).all()):
        channel = int((std > 0).logical_not().nonzero()[0])
        raise NumericsError(where, given, f"channel {channel} is constant: add noise, or take a larger batch")
    return mean, std


def random_rotation(channels: int, seed: int) -> Tensor:
    """An orthogonal matrix in float64, uniform over the group, from a generator of its own."""
    q, r = torch.linalg.qr(normal((channels, channels), seed))
    # The signs of R's diagonal make Q uniform (Mezzadri), and the same whatever LAPACK does.
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The orthogonal matrix next to one that is orthogonal up to the rounding of a narrower dtype."""
    q = matrix.to("cpu", torch.float64)
    for _ in range(4):  # Newton and Schulz: towards the nearest orthogonal matrix, quadratically
        q = q @ (3 * torch.eye(len(q), dtype=q.dtype, device=q.device) - q.t() @ q) / 2
    rounded: Tensor = q.to(matrix)
    return rounded


def widened(before: torch.dtype, after: torch.dtype) -> bool:
    """Whether a cast went to a finer dtype, so that what was exact no longer is."""
    return torch.finfo(after).eps < torch.finfo(before).eps
