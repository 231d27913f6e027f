"""Base densities of a flow, from ``torch.distributions``: checked, evaluated and drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, constraints

from invgraph.errors import ArgumentError, GraphError, NumericsError
from invgraph.numerics.domain import beside, zero_density
from invgraph.shapes import Shape
from invgraph.torch_internals import has_data, validates_arguments

Base: TypeAlias = Distribution | Sequence[object] | None
Bounds: TypeAlias = tuple[Tensor | None, Tensor | None]


def base_log_prob(base: Distribution, z: Tensor, label: str) -> Tensor:
    """Return the log-density of the latents, shape ``(B,)``; name values that the base refuses, with their row.

    A base that does not validate its arguments has the density zero outside of its support, whatever its own formula
    would give there. A value at an end of the support, to which a layer may have rounded, counts as one beside it.
    """
    z, outside = _within(z, bounds_of(base), keep=validates_arguments(base))
    log_prob = _sum_rows(_own_log_prob(base, z, label))
    return log_prob if outside is None else zero_density(log_prob, outside)


def bounds_of(base: Distribution) -> Bounds | None:
    """Return the ends of the interval in which a density is positive; None if it is another set, or not known.

    An end at infinity is None.
    """
    try:
        constraint = base.support
    except NotImplementedError:
        return None
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint is constraints.real:
        return None, None
    if constraint is None or constraint.is_discrete or constraint.event_dim:
        return None
    low, high = (vars(constraint).get(name) for name in ("lower_bound", "upper_bound"))
    if low is None and high is None:
        return None
    return None if low is None else torch.as_tensor(low), None if high is None else torch.as_tensor(high)


def _within(z: Tensor, bounds: Bounds | None, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Return latents that a base can evaluate, and which of them lie outside its support; unless those are to keep."""
    low, high = (None if end is None else end.detach().to(z) for end in bounds or (None, None))
    if low is None and high is None:
        return z, None
    outside = torch.zeros_like(z, dtype=torch.bool)
    for end, inwards in ((low, 1), (high, -1)):
        if end is not None:
            z = torch.where(z == end, beside(end, inwards), z)
            outside = outside | (inwards * (z - end) < 0)
    if keep:
        return z, None
    inner = _between(low, high)
    return torch.where(outside, inner, z), outside


def _between(low: Tensor | None, high: Tensor | None) -> Tensor:
    """Return a number between both ends, of which one may be at infinity."""
    if low is not None and high is not None:
        return (low + high) / 2
    return torch.as_tensor(high) - 1 if low is None else low + 1


def _own_log_prob(base: Distribution, z: Tensor, label: str) -> Tensor:
    try:
        log_prob: Tensor = base.log_prob(z)
    except ValueError as error:
        try:
            support = base.support
        except NotImplementedError:
            support = None
        if support is None:  # a distribution of the user's, with an error of its own
            raise
        supported: Tensor = support.check(z)
        refused = supported.reshape(len(z), -1).logical_not().any(1) if len(z) else torch.zeros(0)
        if not bool(refused.any()):
            raise
        row, least, most = int(refused.nonzero()[0]), *torch.aminmax(z[refused][0])
        given = f"{label}, row {row} (and {int(refused.sum()) - 1} more): values from {least:g} to {most:g}"
        advice = (
            f"outside the support of the base {describe_base(base)}: choose a base that covers the range of the last "
        )
        advice += "layer, or end in a layer with its range (Sigmoid); with validate_args=False the base decides"
        raise NumericsError("Flow", given, advice) from error
    return log_prob


def _sum_rows(terms: Tensor) -> Tensor:
    return terms.flatten(1).sum(1) if terms.ndim > 1 else terms


def draw_scaled(base: Distribution, count: int, temperature: float) -> Tensor:
    """Draw latents, with their deviation from the mean of the base scaled by the temperature."""
    draw = base.rsample if base.has_rsample else base.sample
    z: Tensor = draw(torch.Size((count,)))
    if temperature == 1:
        return z
    try:
        mean: Tensor | None = base.mean
    except NotImplementedError:
        mean = None
    # Cauchy, StudentT and others return NaN or infinity where the integral of the mean does not exist.
    if mean is None or (has_data(mean) and not bool(mean.isfinite().all())):
        advice = "this base has no finite mean, around which a temperature scales the latents: leave it at 1"
        given = f"temperature={temperature} with a base {describe_base(base)}"
        raise ArgumentError("Flow.sample", given, advice)
    if temperature > 1 and any(end is not None for end in bounds_of(base) or ()):
        given = f"temperature={temperature} with a base {describe_base(base)}, whose support has an end"
        raise ArgumentError("Flow.sample", given, "samples would leave the support: temperature can be 1 at most")
    return mean + temperature * (z - mean)


def describe_base(base: Distribution) -> str:
    """Name the distribution, without its parameters: they may be trained, and differ between devices."""
    inner = base.base_dist if isinstance(base, (Independent, TransformedDistribution)) else None
    return type(base).__name__ + ("" if inner is None else f"({describe_base(inner)})")


def base_shape(base: Distribution) -> Shape:
    """Return the shape of one draw."""
    return tuple(base.batch_shape + base.event_shape)


def base_tensor(base: Distribution) -> Tensor | None:
    """Return a floating-point tensor that represents the dtype and device of a distribution, or None."""
    for value in vars(base).values():
        found = base_tensor(value) if isinstance(value, Distribution) else value
        if isinstance(found, Tensor) and found.is_floating_point():
            return found
    return None


def as_bases(base: Base, shapes: tuple[Shape, ...]) -> tuple[Distribution, ...] | None:
    """Return one distribution for each output, or None for the standard normal."""
    if base is None:
        return None
    if not isinstance(base, (Distribution, list, tuple)):
        raise ArgumentError("Flow", f"base: {type(base).__name__}", "expected a Distribution, or one for each output")
    bases = (base,) if isinstance(base, Distribution) else tuple(base)
    if len(bases) != len(shapes):
        raise GraphError("Flow", f"{len(bases)} base densities", f"expected {len(shapes)}, one for each output")
    checked: list[Distribution] = []
    for index, (density, shape) in enumerate(zip(bases, shapes, strict=True)):
        if not isinstance(density, Distribution):
            given = f"base {index}: {type(density).__name__}"
            raise ArgumentError("Flow", given, "expected a torch.distributions.Distribution")
        own = base_shape(density)
        if own != shape:
            given = f"base {index} of shape {own}"
            raise GraphError("Flow", given, f"expected {shape}, the shape of the output: see Distribution.expand")
        if _is_discrete(density):
            given = f"base {index}: {describe_base(density)}"
            advice = "its values are whole numbers: use a density of real numbers, and Dequantize for integer data"
            raise GraphError("Flow", given, advice)
        checked.append(density)
    return tuple(checked)


def _is_discrete(base: Distribution) -> bool:
    """True if a distribution has probabilities of single values, and no density; also if these are transformed."""
    while isinstance(base, (Independent, TransformedDistribution)):
        base = base.base_dist
    try:
        return bool(getattr(base.support, "is_discrete", False))
    except NotImplementedError:
        return False
