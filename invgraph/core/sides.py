"""Sides of a coupling: the part of the channels that each transforms, by which transform, given the other part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from invgraph.arguments import require_choice
from invgraph.errors import GraphError
from invgraph.shapes import Shape
from invgraph.transforms.transform import Transform, require_transform


class Side(NamedTuple):
    """One side of a coupling.

    Attributes:
        part: Index of the part that is transformed, 0 or 1; the networks read the other one.
        channels: Number of its channels.
        transform: Transform of the part.
    """

    part: int
    channels: int
    transform: Transform

    def subnet_shapes(
        self, shape: Shape, cond_shapes: tuple[Shape, ...], copies: int
    ) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what each network reads, as data and conditions, and of what it returns.

        Arguments:
            shape: Shape of the coupling's input, without the batch.
            cond_shapes: Shapes of the conditions.
            copies: Number of networks that compute the parameters together.
        """
        channels, *sizes = shape
        written = self.channels * self.transform.params_per_element // copies
        return (channels - self.channels, *sizes), cond_shapes, (written, *sizes)


class Sided:
    """Second base class of a coupling: the sides are those of its transform, also after another one was assigned.

    Attributes:
        sizes: Number of channels of both parts.
        sides: The sides, in the order in which they are transformed.
    """

    label: str
    sizes: list[int]
    sides: tuple[Side, ...]
    _transform: Transform | tuple[Transform, ...]
    _fused: Any = None

    @property
    def transform(self) -> Transform | tuple[Transform, ...]:
        """The transform of both parts, or the pair; another one, such as one of a lower clamp, may be assigned.

        Raises:
            GraphError: If it takes another number of parameters than the subnets return.
        """
        return self._transform

    @transform.setter
    def transform(self, transform: Transform | tuple[Transform, ...]) -> None:
        sides = choose_sides(self.label, transform, self.sizes, len(self.sides), self.sides[0].part + 1)
        counts, own = ([side.transform.params_per_element for side in every] for every in (sides, self.sides))
        if counts != own:
            given = f"a transform of {counts[0]} parameters per element, for subnets that return {own[0]}"
            raise GraphError(self.label, given, "build a new layer: the subnets have another number of outputs")
        self.sides, self._fused = sides, None
        self._transform = tuple(transform) if isinstance(transform, (tuple, list)) else transform


def choose_sides(where: str, transform: object, sizes: Sequence[int], sides: object, part: object) -> tuple[Side, ...]:
    """Return the sides of a coupling, in the order in which they are transformed.

    Arguments:
        where: Layer named in errors.
        transform: Transform, or a pair: of the first and the second part.
        sizes: Number of channels of both parts.
        sides: Number of parts to transform, 1 or 2.
        part: Part that is transformed first, or alone, 1 or 2.

    Raises:
        ArgumentError: If an argument has the wrong type.
        GraphError: If an argument is out of range, or there is no pair where one is needed.
    """
    count = require_choice(where, "sides", sides, (1, 2))
    first = require_choice(where, "part", part, (1, 2)) - 1
    if isinstance(transform, (tuple, list)):
        transforms = _require_pair(where, transform, count)
    else:
        transforms = (require_transform(where, transform),) * 2
    return tuple(Side(k, sizes[k], transforms[k]) for k in (first, 1 - first)[:count])


def _require_pair(where: str, transforms: Sequence[object], sides: int) -> tuple[Transform, ...]:
    if len(transforms) != 2 or sides != 2:
        given = f"{len(transforms)} transforms, sides={sides}"
        raise GraphError(where, given, "give one transform, or, with sides=2, a pair for the first and the second part")
    return tuple(require_transform(where, entry) for entry in transforms)
