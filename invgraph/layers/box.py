"""Bounded numbers, such as parameters with a uniform prior, as all real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from invgraph.arguments import as_filled, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Ends, Knowns
from invgraph.errors import GraphError, NumericsError
from invgraph.numerics.channels import is_more_precise
from invgraph.numerics.domain import beside, into_open_interval, zero_density
from invgraph.numerics.interval import REALS, Interval, carried
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.seeding import to_defaults
from invgraph.shapes import Tensors
from invgraph.torch_internals import has_data


class Box(Invertible):
    r"""Map each element from its interval to all real numbers.

    .. math:: y = \log \frac{u}{1 - u}, \qquad u = \frac{x - a}{b - a}

    As the first layer of a flow, it confines the density to a box: samples never leave it, and the log-density outside
    is minus infinity.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        :math:`-\sum \log \left(u (1 - u) (b - a)\right)`, nats per sample; minus infinity if an element lies outside.
        The ends of an interval count as the numbers next to them, because samples are rounded to them.

    Arguments:
        in_shapes: Shape of the input.
        low: Lower ends, of the shape of the input or of one that broadcasts to it. Part of the ``state_dict``.
        high: Upper ends, likewise.
        check_domain: If True, forward raises :class:`~invgraph.errors.NumericsError` for values outside the box. This
            is for debugging: it depends on the data, so it can't be compiled or vectorized by vmap. If False (default),
            values outside have a log-determinant, and thus a log-density, of minus infinity.

    Raises:
        ArgumentError: If an end is not a tensor or nested lists of numbers.
        GraphError: If an end has another shape or is not finite, or a lower end is not below its upper end.

    References:
        B. Carpenter et al., "Stan: A Probabilistic Programming Language", 2017 (its transform for bounded scalars),
        https://doi.org/10.18637/jss.v076.i01

    Example:
        >>> import torch, invgraph as ig
        >>> box = ig.Box((2,), low=[0.0, -1.0], high=[1.0, 3.0])
        >>> (y,), log_det = box((torch.tensor([[0.5, 1.0], [2.0, 1.0]]),))
        >>> y[0], log_det
        (tensor([0., 0.]), tensor([1.3863,   -inf]))
    """

    fixed_size_reason = "it keeps its ends for each element"
    low: Tensor
    high: Tensor

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, low: Any, high: Any, check_domain: bool = False
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.check_domain = require_flag("Box", "check_domain", check_domain)
        shape = self.in_shapes[0]
        a, b = as_filled("Box", "low", low, shape), as_filled("Box", "high", high, shape)
        self.register_buffer("low", to_defaults(a))
        self.register_buffer("high", to_defaults(b))
        self._exact = {"low": a, "high": b}
        dtype = self.low.dtype
        width = b.to(dtype) - a.to(dtype)  # of the ends as they are held; the buffers may have no data
        right = (width > 0) & width.isfinite()
        if not bool(right.all()):
            index = int(right.flatten().to(torch.int).argmin())
            given = f"low={a.flatten()[index].item()!r}, high={b.flatten()[index].item()!r} at element {index}"
            advice = "low must be below high"
            if bool((a < b).all()):
                advice += f", and their difference a number above zero in {dtype}: shift or scale the data"
            raise GraphError("Box", given, advice)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.low.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if is_more_precise(before, self.low.dtype) and has_data(self.low):
            for name, exact in self._exact.items():
                held: Tensor = getattr(self, name)
                if torch.equal(held, exact.to(before).to(held)):  # else a state was loaded
                    setattr(self, name, exact.to(held))
        return self

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        own = Interval(self.low.min().item(), self.high.max().item()) if has_data(self.low) else None
        return (carried(intervals[0], REALS, own) if inverse else carried(intervals[0], own, REALS),)

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        if not inverse:
            return super()._follow_ends(ends, inverse=False)
        within = ends[0]  # of the real numbers; infinity becomes an end of the box
        return (torch.stack((self.low, self.high)),) if within is None else self._inverse((within.to(self.low),), ())[0]

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        (x,), width = xs, self.high - self.low
        outside = (x < self.low) | (x > self.high)
        if self.check_domain and bool(outside.any()):
            raise self._outside(x, outside)
        # A sample is rounded to a number of x, also at an end; the next number of u is far nearer to that end.
        x = torch.minimum(torch.maximum(x, beside(self.low, 1)), beside(self.high, -1))
        u = into_open_interval((x - self.low) / width)
        below, above = u.log(), torch.log1p(-u)
        return (below - above,), zero_density(per_sample(-below - above - width.log()), outside)

    def _outside(self, x: Tensor, outside: Tensor) -> NumericsError:
        """Return the error for values outside the box, with the first of them."""
        row, *place = outside.nonzero()[0].tolist()
        low, high = (end[tuple(place)].item() for end in (self.low, self.high))
        value = x[(row, *place)].item()
        given = f"{int(outside.sum())} values outside the box; the first, row {row}, element {tuple(place)}: {value:g}"
        return NumericsError(self.label, given, f"this element must lie between {low:g} and {high:g}")

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        (y,), width = ys, self.high - self.low
        x = torch.minimum(torch.maximum(self.low + width * torch.sigmoid(y), self.low), self.high)
        return (x,), per_sample(logsigmoid(y) + logsigmoid(-y) + width.log())
