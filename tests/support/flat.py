"""Wrapper that gives any graph tuples as inputs and outputs, as the contract tests call layers."""

from __future__ import annotations

from typing import Any

import invgraph as ig
from invgraph.core.call import call_checked
from invgraph.core.invertible import Result
from invgraph.shapes import Shape, Tensors


class Flat(ig.Invertible):
    """Layer that takes and returns tuples, whatever structure the module declares."""

    conditional = True
    arity = None

    def __init__(self, module: ig.Invertible) -> None:
        super().__init__(module.in_shapes, module.cond_shapes)
        self.module = module

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.module.out_shapes

    def precompute(self, cs: Tensors) -> Any:
        return self.module.precompute(cs)

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return call_checked(self.module, xs, given, inverse=False)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return call_checked(self.module, ys, given, inverse=True)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        self.module._initialize(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.module._initialize_inverse(ys, cs)


def flat(module: ig.Invertible) -> ig.Invertible:
    """Return the module itself if it takes and returns tuples, else a wrapper that does."""
    ports = (module._inputs(), module._outputs(), module._conditions())
    return Flat(module) if any(port.bare for port in ports) else module
