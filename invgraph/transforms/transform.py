"""What is done to each number, apart from who decides it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

from torch import Tensor

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
