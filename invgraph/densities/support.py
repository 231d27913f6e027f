"""The support of base densities against the range of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from invgraph.core.call import Ports
from invgraph.core.ranges import Ends, Knowns
from invgraph.densities.bases import bounds_of, describe_base
from invgraph.errors import GraphError
from invgraph.numerics.interval import REALS, Interval, Joined, Known, Part
from invgraph.shapes import Shape
from invgraph.torch_internals import has_data, validates_arguments


def support_of(base: Distribution) -> Known:
    """Return the interval in which a density is positive; None if it is another set, or not known."""
    ends = _ends_of(base)
    return None if ends is None else Interval(float(ends[0].min()), float(ends[1].max()))


def ends_of(base: Distribution | None, shape: Shape) -> Tensor | None:
    """Return the ends of each element's support, ``(2, *shape)``; None if it is another set, or not known.

    Arguments:
        base: The density of an output; None for the standard normal.
        shape: Shape of the output.
    """
    ends = torch.tensor(REALS) if base is None else _ends_of(base)
    return None if ends is None else torch.stack([end.expand(shape) for end in ends])


def _ends_of(base: Distribution) -> tuple[Tensor, ...] | None:
    bounds = bounds_of(base)
    if bounds is None or any(end is not None and end.is_meta for end in bounds):
        return None
    low, high = (torch.tensor(default) if end is None else end for end, default in zip(bounds, REALS, strict=True))
    return low.to(high), high


def require_fitting_ends(ports: Ports, bases: Sequence[Distribution] | None, ranges: Knowns, ends: Ends) -> None:
    """Refuse a base that draws single elements of joined values from where the graph has no inverse.

    Raises:
        GraphError: If a base does not fit; the message has the first element that does not.
    """
    for index, own in enumerate(ends):
        base = None if bases is None else bases[index]
        support = ends_of(base, ports.shapes[index])
        if own is None or not has_data(own) or support is None or not isinstance(ranges[index], Joined):
            continue
        inner, outer = (pair.detach().to("cpu", torch.float64) for pair in (support, own))
        size = torch.where(outer.isfinite(), outer.abs(), 0.0).amax(0)
        room = 1e-6 * size.clamp_min(1.0)  # rounding in float32
        wrong = (inner[0] < outer[0] - room) | (inner[1] > outer[1] + room)
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            inside, drawn = (Interval(*pair[:, *place].tolist()) for pair in (outer, inner))
            name = "the standard normal" if base is None else describe_base(base)
            given = f"{ports.label(index)}: element {place} in {inside}, and a base {name} on {drawn} for it"
            advice = (
                f"{int(wrong.sum())} of {wrong.numel()} elements differ: use a base with the range of each element,"
            )
            raise GraphError("Flow", given, advice + " or map the parts to the same range before they are joined")


def require_fitting(ports: Ports, bases: Sequence[Distribution] | None, ranges: Knowns) -> None:
    """Refuse a base with mass that no data has, and one that refuses what the graph returns.

    Raises:
        GraphError: If a base does not fit; the message says what to add.
    """
    for index, own in enumerate(ranges):
        base = None if bases is None else bases[index]
        support = REALS if base is None else support_of(base)
        if own is None or support is None or isinstance(own, Joined):
            continue
        name = "the standard normal" if base is None else describe_base(base)
        given = f"{ports.label(index)}: {own}, and a base {name} on {support}"
        if not own.covers(support):
            advice = "the graph has no inverse where the base draws latents: end in a layer whose range is "
            advice += f"{support}, or "
            advice += "end in the layer that confines the values" if isinstance(own, Part) else f"use a base on {own}"
            raise GraphError("Flow", given, advice)
        if base is not None and not support.covers(own) and validates_arguments(base):
            advice = f"end in a layer whose range is {support} (Elementwise with Sigmoid or Softplus, Inverse of Box),"
            advice += " or build the base with validate_args=False, to give all other values a density of zero"
            raise GraphError("Flow", given, advice)
