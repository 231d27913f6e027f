"""Conversion of vectors, signals, images and volumes to sequences of patches and back."""

from __future__ import annotations

import torch
from torch import Tensor

from invgraph.errors import GraphError
from invgraph.shapes import Shape


def grid(where: str, shape: Shape, patch: int) -> tuple[int, ...]:
    """Return the number of patches along each axis; a vector has one axis.

    Raises:
        GraphError: If a size is not divisible by the patch.
    """
    sizes = shape[1:] or shape
    for size in sizes:
        if size % patch:
            advice = f"size {size} is not divisible by patch={patch}: choose another patch, or pad the data"
            raise GraphError(where, f"shape {shape}", advice)
    return tuple(size // patch for size in sizes)


def patch_size(shape: Shape, patch: int) -> int:
    """Number of elements of a patch."""
    return int(patch) if len(shape) == 1 else int(shape[0] * patch ** (len(shape) - 1))


def to_patches(x: Tensor, patch: int) -> Tensor:
    """Cut ``(B, C, ...)`` into ``(B, T, C * patch * ...)``, in row-major order; ``(B, C)`` into ``(B, T, patch)``."""
    if x.ndim == 2:
        pieces: Tensor = torch.unflatten(x, 1, (-1, patch))
        return pieces
    axes = x.ndim - 2
    for axis in range(axes):
        x = torch.unflatten(x, 2 + 2 * axis, (-1, patch))
    # (B, C, n1, p, n2, p, ...) -> (B, n1, n2, ..., C, p, p, ...)
    order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
    tokens: Tensor = x.permute(order).flatten(1 + axes).flatten(1, axes)
    return tokens


def from_patches(tokens: Tensor, shape: Shape, patch: int) -> Tensor:
    """Invert :func:`to_patches`; the number of channels in ``shape`` may differ from that of the original data."""
    if len(shape) == 1:
        return tokens.flatten(1)
    axes = len(shape) - 1
    counts = tuple(size // patch for size in shape[1:])
    x: Tensor = torch.unflatten(torch.unflatten(tokens, 2, (shape[0], *(patch,) * axes)), 1, counts)
    # (B, n1, n2, ..., C, p, p, ...) -> (B, C, n1, p, n2, p, ...)
    order = [0, 1 + axes]
    for axis in range(axes):
        order += [1 + axis, 2 + axes + axis]
    x = x.permute(order)
    for axis in range(axes):
        x = x.flatten(2 + axis, 3 + axis)
    return x
