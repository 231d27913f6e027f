"""Operations along the channels: split sizes, mixing by a matrix, moments, rotations."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from invgraph.arguments import as_number
from invgraph.errors import GraphError, NumericsError
from invgraph.numerics.processes import sum_over_processes
from invgraph.numerics.seeding import normal
from invgraph.shapes import Shape


def split_sizes(where: str, shape: Shape, split: object) -> list[int]:
    """Return the channels of both parts of an input of this shape.

    Arguments:
        where: Layer named in errors.
        shape: Shape of the input, without the batch.
        split: Fraction of the channels that go to the first part, or their number.

    Raises:
        ArgumentError: If ``split`` is not a number.
        GraphError: If a part would have no channel.
    """
    channels = shape[0]
    number = as_number(where, "split", split)
    given = f"split={number} of {channels} channels"
    if channels < 2:
        others = "Squeeze moves positions into channels, MaskedCoupling splits the positions"
        other = others if len(shape) > 1 else "use Elementwise for a single element"
        raise GraphError(where, f"input of shape {shape}", f"a coupling needs at least 2 channels: {other}")
    if isinstance(number, float) and not 0 < number < 1:
        raise GraphError(where, given, "split must be a fraction in (0, 1) or a number of channels")
    first = math.floor(channels * number + 1e-9) if isinstance(number, float) else number  # 0.29 * 100 is 28.999...
    if not 0 < first < channels:
        raise GraphError(where, given, f"parts of {first} and {channels - first}: each needs at least one channel")
    return [first, channels - first]


def mix(x: Tensor, matrix: Tensor) -> Tensor:
    """Return ``matrix @ x`` at every position, in the dtype of the data even under autocast."""
    # Meta tensors have no autocast. Where it is off, entering the context takes longer than a product of small vectors.
    known = not torch.compiler.is_compiling() and not x.is_meta
    off = x.is_meta or (known and not torch.is_autocast_enabled(x.device.type))
    with nullcontext() if off else torch.autocast(x.device.type, enabled=False):
        if x.ndim == 2:
            return x @ matrix.t()
        mixed: Tensor = torch.unflatten(matrix @ x.flatten(2), 2, x.shape[2:])
        return mixed


def channel_moments(where: str, x: Tensor, *, scaled: bool = True) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of a batch, for data-dependent initialization.

    Within :func:`~invgraph.numerics.processes.summed_over`, the batch is that of all processes. Sums and squares may be
    out of the range of the data's dtype, and are taken in float64, where the device has it.

    Arguments:
        where: Name in error messages.
        x: The batch.
        scaled: True (default) if the deviations are used, and must be positive.

    Raises:
        NumericsError: If a channel has a single element or is constant, so that it has no scale, or is not finite.
    """
    per_channel = x.transpose(0, 1).flatten(1).to(torch.float32 if x.device.type == "mps" else torch.float64)
    given = f"batch of shape {tuple(x.shape)}"
    count = sum_over_processes(per_channel.new_tensor(per_channel.shape[1]))
    if scaled and count < 2:
        raise NumericsError(where, given, "a standard deviation needs at least two numbers per channel")
    mean = sum_over_processes(per_channel.sum(1)) / count
    # A second pass takes the rounding of the first away, by which equal numbers would deviate from their mean.
    mean = mean + sum_over_processes((per_channel - mean[:, None]).sum(1)) / count
    std = (sum_over_processes((per_channel - mean[:, None]).square().sum(1)) / count).sqrt()
    mean, std = mean.to(x.dtype), std.to(x.dtype)
    finite = mean.isfinite() & std.isfinite()
    if not bool(finite.all()):
        channel = int(finite.logical_not().nonzero()[0])
        advice = f"mean or deviation of channel {channel} is NaN or infinite: look for such numbers in the batch"
        raise NumericsError(where, given, advice)
    if scaled and not bool((std > 0).all()):
        channel = int((std > 0).logical_not().nonzero()[0])
        raise NumericsError(where, given, f"channel {channel} is constant: add noise, or use a larger batch")
    return mean, std


def random_rotation(channels: int, seed: int) -> Tensor:
    """Return a float64 orthogonal matrix, drawn uniformly from the orthogonal group with a private generator."""
    q, r = torch.linalg.qr(normal((channels, channels), seed))
    # The signs of R's diagonal make Q uniform (Mezzadri) and independent of the LAPACK build.
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Return the orthogonal matrix nearest to one that is orthogonal up to rounding of a narrower dtype."""
    q = matrix.to("cpu", torch.float64)
    for _ in range(4):  # Newton-Schulz iteration: converges quadratically to the nearest orthogonal matrix
        q = q @ (3 * torch.eye(len(q), dtype=q.dtype, device=q.device) - q.t() @ q) / 2
    rounded: Tensor = q.to(matrix)
    return rounded


def is_more_precise(before: torch.dtype, after: torch.dtype) -> bool:
    """True if a cast went to a dtype of higher precision, so that rounded constants need to be computed again."""
    return torch.finfo(after).eps < torch.finfo(before).eps
