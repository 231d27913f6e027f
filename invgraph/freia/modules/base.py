"""Base class of all layers with FrEIA's contract."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn

from invgraph.errors import ArgumentError, ShapeError
from invgraph.freia.contract import as_ints
from invgraph.freia.runner import refuse_old_call
from invgraph.shapes import Shape

__all__ = ["InvertibleModule"]

ShapeList = Iterable[Sequence[int]]
"""Annotation of the shapes of inputs or conditions, which programs import from here."""


class InvertibleModule(nn.Module):
    """A layer in FrEIA's way: ``(y,), log_jac = module((x,), c=(c,), rev=False, jac=True)``.

    A subclass writes :meth:`forward` and :meth:`output_dims`. Native layers derive from :class:`invgraph.Invertible`.

    Arguments:
        dims_in: Shapes of the inputs, without the batch.
        dims_c: Shapes of the conditions.
    """

    if TYPE_CHECKING:
        __call__: Any

    preserves_volume = False
    """True for a class whose log-determinant is zero, so that networks need not ask for it; subclasses are asked."""

    def __init__(self, dims_in: ShapeList, dims_c: ShapeList | None = None) -> None:
        super().__init__()
        self.dims_in: Any = list(as_ints(dims_in))
        self.dims_c: Any = list(as_ints(dims_c or []))

    # Subclasses of every kind override it: some take no conditions, some take arguments in another order.
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return outputs and log-determinant of one direction: ``forward(x_or_z, c=None, rev=False, jac=True)``."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} does not provide forward(x_or_z, c=None, rev=False, jac=True)")

    def output_dims(self, input_dims: Any) -> Any:
        """Return the shapes of the outputs, from those of the inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not provide output_dims(input_dims)")

    def log_jacobian(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the call of FrEIA before 0.2."""
        refuse_old_call(type(self).__name__, "log_jacobian")

    def jacobian(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the call of FrEIA's first version."""
        refuse_old_call(type(self).__name__, "jacobian")


class OneInput(InvertibleModule):
    """A layer of one input, whose output has the input's shape unless it says otherwise."""

    def __init__(self, dims_in: Any, dims_c: Any = None) -> None:
        super().__init__(dims_in, dims_c)
        require_one(self, self.dims_in)
        self._channels: int = self.dims_in[0][0]

    def output_dims(self, input_dims: Any) -> Any:
        require_one(self, input_dims)
        return input_dims


def no_log_jac(x: Tensor, jac: bool) -> Tensor | float:
    """Return the log-determinant of a layer that preserves volumes: a tensor of shape ``(B,)`` if one is wanted."""
    return x.new_zeros(x.shape[0]) if jac else 0.0


def require_one(module: object, dims: Any) -> Shape:
    """Return the shape of the only input; refuse several."""
    if len(dims) != 1:
        raise ShapeError(type(module).__name__, f"{len(dims)} inputs", "can only use 1 input")
    return tuple(dims[0])


def require_vector(module: object, dims: Any) -> None:
    """Refuse an input with positions."""
    if len(require_one(module, dims)) != 1:
        raise ShapeError(type(module).__name__, f"input of shape {tuple(dims[0])}", "the input must be a vector (C,)")


def require_image(module: object, dims: Any) -> Shape:
    """Return the shape of the only input; refuse anything but an image."""
    shape = require_one(module, dims)
    if len(shape) != 3:
        raise ShapeError(type(module).__name__, f"input of shape {shape}", "the input must be an image (C, H, W)")
    return shape


def positions(x: Tensor) -> int:
    """Return the number of positions of a channel."""
    return math.prod(x.shape[2:])


def require_subnet(module: object, constructor: Any) -> Any:
    """Refuse a block without a callable subnet constructor."""
    if not callable(constructor):
        given = f"subnet_constructor={constructor!r}"
        raise ArgumentError(type(module).__name__, given, "supply a function f(channels_in, channels_out) -> nn.Module")
    return constructor
