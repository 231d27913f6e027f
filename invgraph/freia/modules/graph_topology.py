"""FrEIA's layers of several outputs or inputs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.errors import GraphError
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, no_log_jac
from invgraph.shapes import Shape

__all__ = ["Concat", "Concat1d", "ConcatChannel", "Split", "Split1D", "SplitChannel"]

Result = tuple[tuple[Tensor, ...], Tensor | float]


class Split(OneInput):
    """Split a tensor along an axis into several.

    Arguments:
        dims_in: Shape of the input, in a list.
        section_sizes: Size of each section, or one size for all; what is left over is one more section.
        n_sections: Number of sections of nearly equal size, if no sizes are given.
        dim: Axis, without the batch.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, section_sizes: Any = None, n_sections: int = 2, dim: int = 0) -> None:
        super().__init__(dims_in)
        shape: Shape = self.dims_in[0]
        if not -len(shape) <= dim < len(shape):
            raise GraphError("Split", f"dim={dim}", f"an input of shape {shape} has axes 0..{len(shape) - 1}")
        self.dim = dim % len(shape)
        self.split_size_or_sections = _sections(shape[self.dim], section_sizes, n_sections)

    def forward(self, x: Sequence[Tensor], rev: bool = False, jac: bool = True) -> Result:
        log_jac = no_log_jac(x[0], jac)
        if rev:
            return (torch.cat(tuple(x), dim=self.dim + 1),), log_jac
        return tuple(torch.split_with_sizes(x[0], self.split_size_or_sections, dim=self.dim + 1)), log_jac

    def output_dims(self, input_dims: Any) -> Any:
        (shape,) = input_dims
        return [(*shape[: self.dim], size, *shape[self.dim + 1 :]) for size in self.split_size_or_sections]


def _sections(size: int, section_sizes: Any, n_sections: int) -> list[int]:
    """Return the size of each section."""
    if section_sizes is None:
        if not 2 <= n_sections <= size:
            given = f"n_sections={n_sections} of an axis of size {size}"
            raise GraphError("Split", given, "the number of sections must be at least 2, and at most that size")
        small, larger = divmod(size, n_sections)
        if larger:
            warnings.warn("Split will create sections of unequal size", stacklevel=3)
        return [small + 1] * larger + [small] * (n_sections - larger)
    if isinstance(section_sizes, int):
        if not 0 < section_sizes < size:
            given = f"section_sizes={section_sizes} of an axis of size {size}"
            raise GraphError("Split", given, "a section must be smaller than the axis")
        whole, rest = divmod(size, section_sizes)
        return [section_sizes] * whole + [rest] * (rest > 0)
    sizes = [int(section) for section in section_sizes]
    if sum(sizes) > size or min(sizes, default=0) < 1:
        raise GraphError("Split", f"section_sizes={sizes} of an axis of size {size}", "the sections must fit into it")
    if sum(sizes) < size:
        warnings.warn("'section_sizes' too small, adding additional section", stacklevel=3)
        sizes.append(size - sum(sizes))
    return sizes


class Concat(InvertibleModule):
    """Concatenate several tensors along an axis.

    Arguments:
        dims_in: Shapes of the inputs.
        dim: Axis, without the batch.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dim: int = 0) -> None:
        super().__init__(dims_in)
        shapes: list[Shape] = self.dims_in
        if len(shapes) < 2:
            raise GraphError("Concat", "one input", "concatenation only makes sense for multiple inputs")
        if not -len(shapes[0]) <= dim < len(shapes[0]):
            raise GraphError("Concat", f"dim={dim}", f"inputs of shape {shapes[0]} have axes 0..{len(shapes[0]) - 1}")
        self.dim = dim % len(shapes[0])
        others = {(len(shape), *shape[: self.dim], *shape[self.dim + 1 :]) for shape in shapes}
        if len(others) > 1:
            given = f"inputs of shapes {', '.join(map(str, shapes))}"
            raise GraphError("Concat", given, f"all sizes but those of axis {self.dim} must be equal")
        self.split_size_or_sections = [shape[self.dim] for shape in shapes]

    def forward(self, x: Sequence[Tensor], rev: bool = False, jac: bool = True) -> Result:
        log_jac = no_log_jac(x[0], jac)
        if rev:
            return tuple(torch.split_with_sizes(x[0], self.split_size_or_sections, dim=self.dim + 1)), log_jac
        return (torch.cat(tuple(x), dim=self.dim + 1),), log_jac

    def output_dims(self, input_dims: Any) -> Any:
        first = input_dims[0]
        size = sum(shape[self.dim] for shape in input_dims)
        return [(*first[: self.dim], size, *first[self.dim + 1 :])]


def _warn(old: object, new: str) -> None:
    message = f"{type(old).__name__} is deprecated and will be removed. Use {new} instead."
    # As FrEIA's, it is attributed to this line, so that Python's default filters do not show it to users.
    warnings.warn(message, DeprecationWarning, stacklevel=1)


class Split1D(Split):
    """Deprecated name of :class:`Split`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn(self, "Split")
        super().__init__(*args, **kwargs)


class SplitChannel(Split):
    """Deprecated name of :class:`Split`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn(self, "Split")
        super().__init__(*args, **kwargs)


class Concat1d(Concat):
    """Deprecated name of :class:`Concat`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn(self, "Concat")
        super().__init__(*args, **kwargs)


class ConcatChannel(Concat):
    """Deprecated name of :class:`Concat`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn(self, "Concat")
        super().__init__(*args, **kwargs)
