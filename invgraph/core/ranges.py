"""Domains and ranges: the intervals in which the values lie that enter and leave a module, and their elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from invgraph.numerics.interval import REALS, Interval, Known, Part, confined, is_reals, joined
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import has_data

Knowns = tuple[Known, ...]
Ends = tuple[Tensor | None, ...]
"""Lower and upper ends for each element of each value, ``(2, *shape)``; None for a value whose ends are not known."""


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

        def _forward(self, xs: Tensors, cs: Any) -> tuple[Tensors, Tensor]: ...

        def _inverse(self, ys: Tensors, cs: Any) -> tuple[Tensors, Tensor]: ...

    @property
    def domain(self) -> Knowns:
        """The interval of each input outside of which the density is zero; None if it is not known."""
        return self._follow((None,) * len(self.out_shapes), inverse=True)

    @property
    def range(self) -> Knowns:
        """The interval of each output; None if it is not known, or depends on the data."""
        return self._follow((None,) * len(self.in_shapes), inverse=False)

    @property
    def _ends(self) -> Ends:
        """The ends of each element of each output; None if they are not known."""
        return self._follow_ends((None,) * len(self.in_shapes), inverse=False)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        """Return the intervals of the results of a direction from those of its arguments."""
        count = len(self.in_shapes if inverse else self.out_shapes)
        if self.range_kind == "same":
            return (joined(intervals),) * count
        if self.range_kind == "unknown":
            return (None,) * count
        whole = all(found is None or is_reals(found) for found in map(confined, intervals))
        return (REALS if whole else Part(*REALS),) * count

    def _find_outside(self, values: Tensors, *, inverse: bool) -> str | None:
        """Return a description of arguments of a direction that lie outside its domain; None if none do."""
        count = len(self.in_shapes if inverse else self.out_shapes)
        for value, interval in zip(values, self._follow((None,) * count, inverse=not inverse), strict=True):
            if interval is not None:
                outside = int(((value < interval.low) | (value > interval.high)).sum())
                if outside:
                    return f"{outside} of {value.numel()} values lie outside of {interval}"
        return None

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        """Return the ends of each element of the results of a direction, from those of its arguments.

        A layer that only moves numbers moves their ends; of other layers, all elements of a value have the same ends,
        those of :meth:`_follow`, unless the layer knows better. Where one of several values is not known, such as data
        that are joined with what a layer returns, it may be any number.
        """
        before, shapes = (self.in_shapes, self.out_shapes)[:: -1 if inverse else 1]
        if self.range_kind == "same" and any(value is not None for value in ends):
            given = [
                filled(REALS, shape) if value is None else value for value, shape in zip(ends, before, strict=True)
            ]
            own = [*self.parameters(), *self.buffers(), *(value for value in given if value.is_meta), *given]
            moved = tuple([value.to(own[0].device) for value in given])
            return (self._inverse if inverse else self._forward)(moved, ())[0]
        found = self._follow(tuple(map(_around, ends)), inverse=inverse)
        pairs = zip(found, shapes, strict=True)
        return tuple([None if interval is None else filled(interval, shape) for interval, shape in pairs])


def filled(interval: Interval, shape: Shape) -> Tensor:
    """Return the ends of elements that all lie in the same interval."""
    return torch.tensor(interval, device="cpu").view(2, *[1] * len(shape)).repeat(1, *shape)


def _around(ends: Tensor | None) -> Known:
    return None if ends is None or not has_data(ends) else Interval(ends[0].min().item(), ends[1].max().item())
