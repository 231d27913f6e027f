"""The support of base densities against the range of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from invgraph.core.call import Ports
from invgraph.core.ranges import Knowns
from invgraph.densities.bases import describe_base
from invgraph.errors import GraphError
from invgraph.numerics.interval import REALS, Interval, Known
from invgraph.shapes import Shape
from invgraph.torch_internals import validates_arguments


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
    try:
        constraint = base.support
    except NotImplementedError:
        return None
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint is constraints.real:
        return torch.tensor(-torch.inf), torch.tensor(torch.inf)
    if constraint is None or constraint.is_discrete or constraint.event_dim:
        return None
    low, high = (vars(constraint).get(name) for name in ("lower_bound", "upper_bound"))
    if low is None and high is None:
        return None
    ends = [torch.as_tensor(end) for end in (-torch.inf if low is None else low, torch.inf if high is None else high)]
    return None if any(end.is_meta for end in ends) else (ends[0].to(ends[1]), ends[1])


def require_fitting(ports: Ports, bases: Sequence[Distribution] | None, ranges: Knowns) -> None:
    """Refuse a base with mass that no data has, and one that refuses what the graph returns.

    Raises:
        GraphError: If a base does not fit; the message says what to add.
    """
    for index, own in enumerate(ranges):
        base = None if bases is None else bases[index]
        support = REALS if base is None else support_of(base)
        if own is None or support is None:
            continue
        name = "the standard normal" if base is None else describe_base(base)
        given = f"{ports.label(index)}: {own}, and a base {name} on {support}"
        if not own.covers(support):
            advice = "the graph has no inverse where the base draws latents: end in a layer whose range is "
            raise GraphError("Flow", given, f"{advice}{support}, or use a base on {own}")
        if base is not None and not support.covers(own) and validates_arguments(base):
            advice = f"end in a layer whose range is {support} (Elementwise with Sigmoid or Softplus, Inverse of Box),"
            advice += " or build the base with validate_args=False, to give all other values a density of zero"
            raise GraphError("Flow", given, advice)
