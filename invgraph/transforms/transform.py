"""Base class of the elementwise transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

from torch import Tensor

Direction: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""One direction of a transform: result and log-determinant per sample, from data and parameters."""


class Transform(ABC):
    """Elementwise invertible map, without parameters of its own.

    A structure (:class:`~invgraph.Coupling`, :class:`~invgraph.Elementwise`, ...) supplies the parameters: ``params``
    of shape ``(B, params_per_element, C, ...)`` for data of shape ``(B, C, ...)``; every axis but the second may be
    expanded. All-zero parameters give (nearly) the identity, so a subnet whose last layer is zero starts there.

    Attributes:
        params_per_element: Number of parameters per element.
        pointwise: True if each output element depends only on its own input element and parameters.
    """

    pointwise: ClassVar[bool] = True

    @property
    @abstractmethod
    def params_per_element(self) -> int:
        """Number of parameters per element."""

    def _set(self, **fields: object) -> None:
        """Replace fields by their checked values, in ``__post_init__`` of a frozen dataclass."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y`` and the log-determinant per sample, shape ``(B,)``."""

    @abstractmethod
    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` and the log-determinant of the inverse per sample, shape ``(B,)``."""
