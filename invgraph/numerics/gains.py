"""Positive factors from learned parameters without bounds: the start value is where the parameter is zero."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from invgraph.errors import GraphError

GainFunction = Literal["exp", "softplus", "sigmoid"]
LARGEST = 10.0
"""Bound of the gains by a sigmoid."""


class Gain(NamedTuple):
    """A positive function of a parameter.

    Attributes:
        function: ``"exp"``; ``"softplus"``, which grows linearly; or ``"sigmoid"``, which is bounded by 10.
        start: Its value at zero.
    """

    function: GainFunction
    start: float

    def check(self, where: str) -> Gain:
        """Return the gain itself; refuse a start value that its function does not reach."""
        if self.function == "sigmoid" and self.start >= LARGEST:
            raise GraphError(where, f"gain={self.start}", f"a sigmoid's gain must be below its bound, {LARGEST:g}")
        return self

    @property
    def offset(self) -> float:
        """Number that is added to the parameter, so that zero gives the start value."""
        if self.function == "exp":
            return math.log(self.start)
        if self.function == "softplus":
            return self.start + math.log(-math.expm1(-self.start))
        return math.log(self.start) - math.log(LARGEST - self.start)

    def value(self, raw: Tensor) -> Tensor:
        """Return the gains for these parameters."""
        at = self._shifted(raw)
        if self.function == "exp":
            return at.exp()
        return softplus(at) if self.function == "softplus" else torch.sigmoid(at) * LARGEST

    def log(self, raw: Tensor) -> Tensor:
        """Return the logs of the gains."""
        at = self._shifted(raw)
        if self.function == "exp":
            return at
        if self.function == "softplus":
            return _log_softplus(at)
        return logsigmoid(at) + math.log(LARGEST)

    def raw(self, value: Tensor) -> Tensor:
        """Return the parameters for these gains, in the range of the function."""
        if self.function == "exp":
            at = value.log()
        elif self.function == "softplus":
            at = value + torch.log(-torch.expm1(-value))
        else:
            at = value.log() - torch.log(LARGEST - value)
        return at - self.offset

    def _shifted(self, raw: Tensor) -> Tensor:
        return raw if self.offset == 0 else raw + self.offset


def _log_softplus(x: Tensor) -> Tensor:
    """Return ``log(softplus(x))``, finite for any finite x: for small x it is x itself."""
    small = x < -20
    return torch.where(small, x, torch.log(softplus(torch.where(small, 0.0, x))))
