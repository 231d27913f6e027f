"""Domains and ranges: the intervals in which the values lie that enter and leave a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from invgraph.numerics.interval import REALS, Known, hull
from invgraph.shapes import Shape

Knowns = tuple[Known, ...]


class Ranged(nn.Module):
    """Base class of modules with a domain and a range.

    Attributes:
        range_kind: What the results of a direction may be: ``"any"`` real numbers; the ``"same"`` numbers as the
            arguments, in other places; or ``"unknown"`` (default), for layers that do not say it.
    """

    range_kind: ClassVar[Literal["unknown", "any", "same"]] = "unknown"

    if TYPE_CHECKING:
        in_shapes: tuple[Shape, ...]

        @property
        def out_shapes(self) -> tuple[Shape, ...]: ...

    @property
    def domain(self) -> Knowns:
        """The interval of each input outside of which the density is zero; None if it is not known."""
        return self._follow((None,) * len(self.out_shapes), inverse=True)

    @property
    def range(self) -> Knowns:
        """The interval of each output; None if it is not known, or depends on the data."""
        return self._follow((None,) * len(self.in_shapes), inverse=False)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        """Return the intervals of the results of a direction from those of its arguments."""
        count = len(self.in_shapes if inverse else self.out_shapes)
        if self.range_kind == "same":
            return (hull(intervals),) * count
        return ((REALS if self.range_kind == "any" else None),) * count
