"""Module under test, with data for both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.core.call import Ports
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, ContractError
from invgraph.shapes import Tensors


class Tolerances(NamedTuple):
    """Largest absolute errors that pass."""

    round_trip: float
    log_det: float


TOLERANCES = {torch.float64: Tolerances(1e-10, 1e-9), torch.float32: Tolerances(1e-4, 1e-3)}


def tolerances(dtype: torch.dtype, round_trip: float | None, log_det: float | None) -> Tolerances:
    """Return the caller's tolerances, or those of the dtype."""
    if dtype not in TOLERANCES and (round_trip is None or log_det is None):
        advice = "only float64 and float32 have default tolerances: give tolerance= and log_det_tolerance="
        raise ArgumentError("check_invertible", f"a module in {dtype}", advice)
    own = TOLERANCES.get(dtype, Tolerances(0.0, 0.0))
    return Tolerances(own.round_trip if round_trip is None else round_trip, own.log_det if log_det is None else log_det)


class Direction(NamedTuple):
    """Direction of a module, ``"forward"`` or ``"inverse"``, with the opposite one and the data of a call."""

    label: str
    call: Callable[[Tensors, Tensors], Result]
    back: Callable[[Tensors, Tensors], Result]
    values: Tensors
    conditions: Tensors

    def run(self) -> Result:
        """Call the direction with its data."""
        return self.call(self.values, self.conditions)


@dataclass(frozen=True)
class Subject:
    """Module with inputs, outputs and conditions, all flat tuples.

    Arguments:
        module: Layer or graph.
        xs: Data for the forward direction.
        ys: Data for the inverse direction, drawn independently of ``xs``.
        cs: Conditions for both directions.
        limits: Tolerances.
    """

    module: Invertible
    xs: Tensors
    ys: Tensors
    cs: Tensors
    limits: Tolerances

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return self._call(self.module, self.module._inputs(), xs, cs)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return self._call(self.module.inverse, self.module._outputs(), ys, cs)

    def _call(self, direction: Callable[..., Any], source: Ports, values: Tensors, cs: Tensors) -> Result:
        """Call a direction in the structure that the module declares, with tuples in and out."""
        outputs, log_det = direction(source.pack(values), self.module._conditions().pack(cs))
        return (outputs if isinstance(outputs, tuple) else (outputs,)), log_det

    @property
    def directions(self) -> tuple[Direction, Direction]:
        """Forward and inverse direction."""
        return (
            Direction("forward", self._forward, self._inverse, self.xs, self.cs),
            Direction("inverse", self._inverse, self._forward, self.ys, self.cs),
        )

    def fail(self, given: str, advice: str) -> ContractError:
        """Return the error of a failed check of this module."""
        return ContractError(self.module.label, given, advice)


def gap(left: Tensors, right: Tensors) -> float:
    """Return the largest absolute difference, or NaN if there is one."""
    gaps = [(a.detach() - b.detach()).abs().max() for a, b in zip(left, right, strict=True) if a.numel()]
    return torch.stack(gaps).max().item() if gaps else 0.0


def jacobian(direction: Direction) -> Tensor:
    """Return the Jacobian of each sample, shape ``(B, D, D)``.

    Samples are independent, so the derivatives of the sum over the batch are those of each sample.
    """
    sizes = [value[0].numel() for value in direction.values]

    def total(flat: Tensor) -> Tensor:
        parts = flat.split(sizes, dim=1)
        values = tuple(part.view_as(value) for part, value in zip(parts, direction.values, strict=True))
        outputs, _ = direction.call(values, direction.conditions)
        return torch.cat([output.flatten(1) for output in outputs], dim=1).sum(0)

    flat = torch.cat([value.flatten(1) for value in direction.values], dim=1)
    matrix: Tensor = torch.func.jacrev(total)(flat)
    return matrix.transpose(0, 1)
