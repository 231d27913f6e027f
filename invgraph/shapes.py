"""Shapes, which never include the batch, and the aliases for tensors and shapes.

``core/call.py`` checks the tensors of a call against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from invgraph.arguments import is_int
from invgraph.errors import ArgumentError, GraphError

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = tuple[Tensor, ...]
Structured: TypeAlias = Tensor | Sequence[Tensor]
"""A tensor if one value was declared, a tuple of tensors if several were."""


def as_shape(sizes: Sequence[object], where: str) -> Shape:
    """Return the sizes as a tuple of ints.

    Raises:
        ArgumentError: If a size is not an int.
        GraphError: If there are no sizes, or one is not positive.
    """
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise ArgumentError(where, f"sizes: {type(sizes).__name__}", "expected a tuple of ints, such as (3, 8, 8)")
    given = f"sizes {tuple(sizes)}"
    if len(sizes) == 0:
        raise GraphError(where, given, "a shape has at least one size, without the batch: write (4,) for vectors of 4")
    shape: list[int] = []
    for size in sizes:
        if not is_int(size):
            kind = type(size).__name__
            raise ArgumentError(where, given, f"a size must be an int, not a {kind}")
        if size <= 0:
            raise GraphError(where, given, f"sizes must be positive, got {size}; do not include the batch")
        shape.append(int(size))
    return tuple(shape)


def as_shapes(shapes: object, where: str) -> tuple[Shape, ...]:
    """Return a tuple of shapes; a single shape such as ``(3, 8, 8)`` becomes a tuple of one."""
    if not isinstance(shapes, Sequence) or isinstance(shapes, str):
        raise ArgumentError(where, repr(shapes), "expected a tuple of tuples of ints, such as ((3, 8, 8),)")
    if any(is_int(entry) for entry in shapes):
        return (as_shape(shapes, where),)
    for entry in shapes:
        if not isinstance(entry, Sequence) or isinstance(entry, str):
            raise ArgumentError(where, repr(shapes), "expected a tuple of tuples of ints, such as ((3, 8, 8),)")
    return tuple(as_shape(entry, where) for entry in shapes)


def numel(shapes: Sequence[Shape]) -> int:
    """Total number of elements of values of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def positions(shape: Shape) -> int:
    """Number of positions of a signal, an image or a volume; 1 for a vector."""
    return math.prod(shape[1:])


def batched(shape: Shape) -> str:
    """Format a shape with its batch axis for messages: ``(B, 3, 8, 8)``."""
    return f"(B, {', '.join(map(str, shape))})"


_AXIS_NAMES = {2: ("length",), 3: ("height", "width"), 4: ("depth", "height", "width")}


def require_divisible(shape: Shape, factor: int, where: str, axes: Sequence[int] | None = None) -> None:
    """Raise GraphError unless every spatial size, or those of the given axes, is divisible by the factor."""
    given = f"input of shape {shape}"
    if len(shape) not in _AXIS_NAMES:
        raise GraphError(where, given, "expected a signal (C, L), an image (C, H, W) or a volume (C, D, H, W)")
    for axis, (name, size) in enumerate(zip(_AXIS_NAMES[len(shape)], shape[1:], strict=True), 1):
        if size % factor and (axes is None or axis in axes):
            problem = "odd" if factor == 2 else f"not divisible by {factor}"
            raise GraphError(where, given, f"{name} {size} is {problem}: crop or pad the data first")


def require_axes(where: str, axes: object, shape: Shape) -> Shape:
    """Return spatial axes in ascending order, not counting the batch; all of them for None."""
    every = tuple(range(1, len(shape)))
    if axes is None:
        return every
    if not isinstance(axes, Sequence) or isinstance(axes, str) or not all(map(is_int, axes)):
        raise ArgumentError(where, f"axes: {type(axes).__name__}", "axes must be a tuple of ints, such as (2,)")
    chosen = tuple(sorted(int(axis) for axis in axes))
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(every):
        given = f"axes={tuple(axes)} of shape {shape}"
        raise GraphError(where, given, f"expected some of {every}, each once: 0 would be the channels")
    return chosen


def repeat_rows(c: Tensor, batch: int | torch.SymInt) -> Tensor:
    """Repeat conditions for a batch with several samples of each; a single row is expanded without a copy."""
    if c.shape[0] == batch or c.shape[0] == 1:
        return c.expand(batch, *c.shape[1:])
    return c.expand(batch // c.shape[0], *c.shape).flatten(0, 1)


def describe_shapes(shapes: tuple[Shape, ...]) -> str:
    """Return shapes as text, with commas between them."""
    return ", ".join(map(str, shapes))
