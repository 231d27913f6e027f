"""The bound runner: what depends on the conditions alone is computed once, for any number of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from invgraph.arguments import require_flag
from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError, ShapeError
from invgraph.fused.dispatch import eager
from invgraph.shapes import Ports, Structured, Tensors, check_together, floating_tensor, repeat_rows

if TYPE_CHECKING:
    from invgraph.graph.graph import Graph, Schedule, Step

_WHERE = "bind"
_NUMBERS = 1 << 16
"""At inputs of more numbers than this, activations leave a CPU's caches and convolutions take twice as long each."""


@final
class Bound:
    """A graph under fixed conditions, of B rows: see :meth:`invgraph.Graph.bind`.

    Values have a leading axis of samples: ``inputs, log_det = bound.inverse(z)`` with ``z: (n, B, ...)`` gives
    ``inputs: (n, B, ...)`` and ``log_det: (n, B)``; ``bound(x)`` is the forward direction. Row b of every sample is
    under row b of the conditions.
    """

    def __init__(self, graph: Graph, conditions: Structured, gradients: bool = False) -> None:
        require_flag(_WHERE, "gradients", gradients)
        ports = graph._conditions()
        cs = ports.unpack(_WHERE, conditions)
        if not cs:
            raise GraphError(_WHERE, "a graph without conditions", "there is nothing to bind: call the graph itself")
        self.graph = graph
        self.rows, self.dtype = check_together(_WHERE, ((ports, cs),), floating_tensor(graph))
        graph._require_finite_given(graph.forward_schedule, range(len(cs)), cs)
        self.known: dict[int, Tensor] = dict(enumerate(cs))
        self.shares: dict[int, Any] = {}
        self.norms = [module for module in graph.modules() if isinstance(module, _NormBase)]
        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            self._prepare()

    def __call__(self, inputs: Structured) -> tuple[Any, Tensor]:
        """Outputs and log-determinants of n samples for each row of the conditions."""
        return self._run(self.graph.forward_schedule, self.graph._inputs(), self.graph._outputs(), inputs, False)

    def inverse(self, outputs: Structured) -> tuple[Any, Tensor]:
        """Inputs and log-determinants of the inverse, of n samples for each row of the conditions."""
        return self._run(self.graph.inverse_schedule, self.graph._outputs(), self.graph._inputs(), outputs, True)

    def _prepare(self) -> None:
        """Features of the conditions, and each layer's share of them."""
        layers = tuple(self.graph.layers.values())
        for step in self.graph.forward_schedule.steps:
            if not all(slot in self.known for slot in step.conditions) or not step.conditions:
                continue
            cs = tuple(self.known[slot] for slot in step.conditions)
            layer = layers[step.layer]
            if step.feature:
                made = features(layer(*cs), self.dtype)
                if self.graph.check_finite:
                    self.graph._require_finite(step, made)
                self.known.update(zip(step.outputs, made, strict=True))
            elif isinstance(layer, Invertible):
                self.shares[step.layer] = layer.share(cs)

    def _run(
        self, schedule: Schedule, source: Ports, target: Ports, given: Structured, inverse: bool
    ) -> tuple[Any, Tensor]:
        values, samples = self._flat(source, given)
        self.graph._require_finite_given(schedule, schedule.starts, values)
        rows = self._at_once(values, samples) * self.rows
        parts = zip(*(value.split(rows) for value in values), strict=True)
        *ends, log_det = map(_joined, zip(*(self._walk(schedule, part, inverse) for part in parts), strict=True))
        shaped = tuple(torch.unflatten(end, 0, (samples, self.rows)) for end in ends)
        return target.pack(shaped), log_det.unflatten(0, (samples, self.rows))

    def _at_once(self, values: Tensors, samples: int) -> int:
        """How many samples go through the graph together: on a CPU as many as its caches hold, where that is free."""
        mixed = any(norm.training for norm in self.norms)  # statistics of the batch: of all of it
        if torch.is_grad_enabled() or not eager() or mixed or values[0].device.type != "cpu":
            return max(samples, 1)
        numbers = self.rows * sum(math.prod(value.shape[1:]) for value in values)
        return max(1, _NUMBERS // max(1, numbers))

    def _walk(self, schedule: Schedule, values: Tensors, inverse: bool) -> Tensors:
        """What the schedule ends with, and the log-determinant, row by row."""
        slots: list[Tensor | None] = [None] * self.graph.slots
        for slot, value in zip(schedule.starts, values, strict=True):
            slots[slot] = value
        log_det = values[0].new_zeros(values[0].shape[0])
        layers = tuple(self.graph.layers.values())
        for step in schedule.steps:
            if not (step.feature and step.outputs[0] in self.known):
                log_det = self._advance(step, layers[step.layer], slots, log_det, inverse)
        return *(self._value(slots, slot, 0) for slot in schedule.ends), log_det

    def _advance(self, step: Step, layer: Any, slots: list[Tensor | None], log_det: Tensor, inverse: bool) -> Tensor:
        if step.layer in self.shares and not step.feature:
            direction = layer._inverse_shared if inverse else layer._forward_shared
            outputs, more = direction(tuple(slots[slot] for slot in step.inputs), self.shares[step.layer])
            return self.graph._settle(step, slots, outputs, log_det + more)
        for slot in step.conditions:
            slots[slot] = self._value(slots, slot, log_det.shape[0])
        return self.graph._advance(step, layer, slots, log_det, inverse)

    def _value(self, slots: list[Tensor | None], slot: int, batch: int) -> Tensor:
        """What a slot holds; what is known from the conditions is repeated for the samples."""
        if slot in self.known:
            return repeat_rows(self.known[slot], batch)
        value = slots[slot]
        assert value is not None
        return value

    def _flat(self, source: Ports, given: Structured) -> tuple[Tensors, int]:
        """The values with samples and rows in one axis, and how many samples there are."""
        if not isinstance(given, (Tensor, tuple, list)):
            source.unpack(_WHERE, given)  # tells what is wrong
        values = (given,) if isinstance(given, Tensor) else given
        samples = -1
        flat: list[Tensor] = []
        for value in values:
            if not isinstance(value, Tensor) or value.ndim < 2:
                source.unpack(_WHERE, given)  # tells what is wrong, where the value is no tensor at all
            samples = value.shape[0] if samples < 0 else samples
            if value.ndim < 2 or value.shape[1] != self.rows or value.shape[0] != samples:
                told = f"a value of shape {tuple(value.shape)}"
                advice = f"expected (n, {self.rows}, ...): n samples for each of the {self.rows} rows bound"
                raise ShapeError(_WHERE, told, advice)
            flat.append(value.flatten(0, 1))
        unpacked = source.unpack(_WHERE, flat[0] if isinstance(given, Tensor) else tuple(flat))
        reference = floating_tensor(self.graph)
        check_together(_WHERE, ((source, unpacked),), self.known[0] if reference is None else reference)
        return unpacked, samples


def _joined(parts: Tensors) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def features(result: Any, dtype: torch.dtype) -> Tensors:
    """What a conditioning network returned, as a tuple in the data's dtype (under autocast it comes in half)."""
    several = result if isinstance(result, (tuple, list)) else (result,)
    return tuple(feature.to(dtype) for feature in several)
