"""Base class of the elementwise transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

from torch import Tensor

from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.interval import REALS, Known, carried, confined, hull, is_reals

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
    def domain(self) -> Known:
        """Interval of the inputs outside of which the density is zero; None (default) if it is not known."""
        return None

    @property
    def range(self) -> Known:
        """Interval of the outputs; None (default) if it is not known, or depends on the data."""
        return None

    def follow(self, interval: Known, *, inverse: bool) -> Known:
        """Return the interval of the results of a direction, from that of its arguments."""
        domain, found = (self.range, self.domain) if inverse else (self.domain, self.range)
        return carried(interval, domain, found)

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


class Unbounded(Transform, ABC):
    """Base class of transforms between all real numbers and all real numbers."""

    @property
    def domain(self) -> Known:
        return REALS

    @property
    def range(self) -> Known:
        return REALS


def follow_part(transforms: Sequence[Transform], interval: Known, *, inverse: bool) -> Known:
    """Return the interval of the results of a direction where transforms act on parts of a value."""
    found = hull([transform.follow(interval, inverse=inverse) for transform in transforms])
    interval = confined(interval)
    return found if interval is None and is_reals(found) else hull((interval, found))


def require_transform(where: str, transform: object) -> Transform:
    """Return a transform; refuse anything else."""
    if not isinstance(transform, Transform):
        raise ArgumentError(where, f"transform={transform!r}", "expected a transform such as Affine(clamp=1.9)")
    return transform


def require_pointwise(where: str, transform: object) -> Transform:
    """Return a transform that takes parameters and is pointwise, as autoregressive layers need; refuse any other."""
    transform = require_transform(where, transform)
    if not (transform.params_per_element and transform.pointwise):
        problem = "couples the elements of a sample" if transform.params_per_element else "takes no parameters"
        raise GraphError(where, f"transform={transform!r}", f"this transform {problem}: use another one")
    return transform
