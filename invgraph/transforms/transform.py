"""What is done to each number, apart from who decides it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

from torch import Tensor

from invgraph.errors import ArgumentError, GraphError

Direction: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""One direction of a transform: result and log-determinant per sample, from data and parameters."""


class Transform(ABC):
    """An elementwise invertible map, described without parameters of its own.

    A structure (:class:`~invgraph.Coupling`, :class:`~invgraph.Elementwise`, ...) hands it the numbers: ``params`` of
    shape ``(B, numbers, C, ...)`` for data of shape ``(B, C, ...)``; any size but the second may be expanded. All-zero
    parameters give (nearly) the identity, so that a subnet whose last layer is zero starts there.

    Attributes:
        numbers: how many parameters per element it takes.
        pointwise: whether each number depends on itself and its own parameters alone.
    """

    pointwise: ClassVar[bool] = True

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many parameters per element it takes."""

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and the log-determinant per sample, shape ``(B,)``."""

    @abstractmethod
    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and the log-determinant of the inverse per sample, shape ``(B,)``."""


def require_transform(where: str, transform: object) -> Transform:
    """Return a transform; refuse anything else."""
    if not isinstance(transform, Transform):
        raise ArgumentError(where, f"transform={transform!r}", "expected a transform such as Affine(clamp=1.9)")
    return transform


def require_pointwise(where: str, transform: object) -> Transform:
    """Return a transform that takes parameters and is pointwise, as autoregressive layers need; refuse any other."""
    transform = require_transform(where, transform)
    if not (transform.numbers and transform.pointwise):
        problem = "ties the numbers of a sample to each other" if transform.numbers else "takes no parameters"
        raise GraphError(where, f"transform={transform!r}", f"this transform {problem}: use another one")
    return transform
