"""The bound runner: what depends on the conditions alone is computed once, for any number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_flag
from invgraph.core.call import Ports, check_together
from invgraph.core.derived_weights import renew_weights
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.stochastic import Stochastic
from invgraph.errors import GraphError, InputTypeError, ShapeError
from invgraph.graph.check_finite import run_checked, watch_finite
from invgraph.graph.run import fill, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.numerics.processes import is_sharded
from invgraph.shapes import Structured, Tensors, repeat_rows
from invgraph.torch_internals import batch_norms, floating_tensor, is_eager

ELEMENTS = {"cpu": 1 << 16}
"""Elements of input that go through a graph at once, by the kind of device, if no chunk is given.

More than 65,536 leave a CPU's caches, and convolutions then take twice as long per element."""

_ELEMENTS_ELSEWHERE = 1 << 22


@dataclass(frozen=True)
class Binding:
    """Everything that a graph computed from its conditions.

    Attributes:
        known: Conditions, and features of them, by slot.
        given: What layers computed from their conditions, by the place of the layer.
    """

    known: dict[int, Tensor]
    given: dict[int, Precomputed]

    def is_known(self, step: Step) -> bool:
        """True if all that a step reads is known."""
        return bool(step.conditions) and all(slot in self.known for slot in step.conditions)

    def run(self, schedule: Schedule, layers: Sequence[nn.Module], values: Tensors, check_finite: bool) -> Result:
        """Run a direction on several samples for each row of the conditions, sample by sample."""
        steps = tuple([step for step in schedule.steps if not (step.feature and self.is_known(step))])
        slots = fill(schedule, values, ())
        for step in steps:
            for slot in step.conditions if step.layer not in self.given else ():
                if slot in self.known:
                    slots[slot] = repeat_rows(self.known[slot], values[0].shape[0])
        schedule = replace(schedule, steps=steps)
        if check_finite:
            return run_checked("Graph.bind", schedule, layers, slots, given=self.given)
        return run(schedule, layers, slots, given=self.given)


def bind(schedule: Schedule, layers: Sequence[nn.Module], cs: Tensors, check_finite: bool) -> Binding:
    """Compute what depends on the conditions alone.

    Arguments:
        schedule: The forward schedule of the graph.
        layers: The layers of the graph, in order.
        cs: The conditions, checked.
        check_finite: Refuse conditions and features that are not finite.
    """
    slots = fill(replace(schedule, starts=()), (), cs)
    after = watch_finite("Graph.bind", schedule, slots) if check_finite else None
    known = set(range(len(cs)))
    features = []
    for step in schedule.steps:
        if step.feature and known.issuperset(step.conditions):
            features.append(step._replace(idle=()))
            known.update(step.outputs)
    run(replace(schedule, steps=tuple(features), starts=(0,), ends=()), layers, slots, after=after)
    binding = Binding({slot: value for slot, value in enumerate(slots) if value is not None}, {})
    for step in schedule.steps:
        layer = layers[step.layer]
        if isinstance(layer, Invertible) and binding.is_known(step):
            read = tuple(binding.known[slot] for slot in step.conditions)
            if not torch.compiler.is_compiling():  # as in a call: the layer may have been cast or moved on its own
                check_together(layer.label, ((layer._conditions(), read),), floating_tensor(layer))
            renew_weights(layer)
            given = layer.precompute(read)
            if isinstance(given, Precomputed):
                binding.given[step.layer] = given
    return binding


@final
class BoundGraph:
    """A graph under fixed conditions, of B rows: see :meth:`invgraph.Graph.bind`.

    Values have a leading axis of samples: ``inputs, log_det = bound.inverse(z)`` with ``z: (n, B, ...)`` gives
    ``inputs: (n, B, ...)`` and ``log_det: (n, B)``; ``bound(x)`` is the forward direction. Row b of every sample
    belongs to row b of the conditions.

    Arguments:
        run: Runs a direction of the graph on what was computed from the conditions.
        layers: The layers of the graph.
        schedules: Its forward and its inverse schedule.
        conditions: The conditions, of B rows.
        gradients: True if gradients flow back to what is computed here.
        check_finite: Refuse NaN and infinity, as the graph does.
        label: What errors call the graph.

    Attributes:
        rows: Number B of rows of the conditions.
    """

    def __init__(
        self,
        run: Callable[[bool, Binding, Tensors], Result],
        layers: nn.ModuleDict,
        schedules: tuple[Schedule, Schedule],
        conditions: Structured,
        *,
        gradients: bool = False,
        check_finite: bool = False,
        label: str = "Graph",
    ) -> None:
        self.label = f"{label}.bind"
        require_flag(self.label, "gradients", gradients)
        self.layers, self.schedules, self._run_binding = layers, schedules, run
        forward, _ = schedules
        forward.conditions.require_given(self.label, conditions, "graph.bind({c})")
        cs = forward.conditions.unpack(self.label, conditions)
        if not cs:
            raise GraphError(
                self.label, "a graph without conditions", "there is nothing to bind: call the graph directly"
            )
        if is_sharded(layers.parameters()):
            advice = "they are gathered only for a call of their module: call the graph itself, or unshard it first"
            raise GraphError(self.label, "sharded parameters (FSDP)", advice)
        rows, _ = check_together(self.label, ((forward.conditions, cs),), floating_tensor(layers))
        self.rows = cast("int", rows)
        self.reference = cs[0]
        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            self.binding = bind(forward, tuple(layers.values()), cs, check_finite)

    def __call__(self, inputs: Structured, *, chunk: int | None = None) -> tuple[Any, Tensor]:
        """Return outputs and log-determinants of n samples for each row of the conditions.

        Arguments:
            inputs: Values ``(n, B, ...)``.
            chunk: Largest number of rows, samples times conditions, that go through the graph at once; at least one
                sample of each condition. Fewer take less memory. Default: all where gradients are recorded, or where
                noise or batch statistics would change; otherwise 65,536 elements of input on a CPU, whose caches hold
                no more, and 4,194,304 elsewhere.

        Raises:
            GraphError: If a chunk is given where noise or batch statistics depend on what goes through together.
        """
        return self._run(False, inputs, chunk)

    def inverse(self, outputs: Structured, *, chunk: int | None = None) -> tuple[Any, Tensor]:
        """Return inputs and log-determinants of the inverse, of n samples for each row of the conditions.

        Arguments:
            outputs: Values ``(n, B, ...)``.
            chunk: As in a call.
        """
        return self._run(True, outputs, chunk)

    def _run(self, inverse: bool, values: Structured, chunk: int | None) -> tuple[Any, Tensor]:
        schedule = self.schedules[inverse]
        flat, samples = self._flatten(schedule.source, values)
        rows = rows_at_once(self.label, self.layers, flat, chunk, self.rows)

        def run(*parts: Tensor) -> Result:
            return self._run_binding(inverse, self.binding, parts)

        ys, log_det = run_in_chunks(run, flat, rows)
        shaped = tuple([torch.unflatten(y, 0, (samples, self.rows)) for y in ys])
        return schedule.target.pack(shaped), torch.unflatten(log_det, 0, (samples, self.rows))

    def _flatten(self, source: Ports, given: Structured) -> tuple[Tensors, int]:
        """Return the values with samples and rows in one axis, and the number of samples."""
        if not isinstance(given, (Tensor, tuple, list)):
            source.unpack(self.label, given)  # raises
        values = (given,) if isinstance(given, Tensor) else given
        samples = -1
        flat: list[Tensor] = []
        for value in values:
            if not isinstance(value, Tensor) or value.ndim < 2:
                source.unpack(self.label, given)  # raises if the value is not a tensor
            samples = value.shape[0] if samples < 0 else samples
            if value.ndim < 2 or value.shape[1] != self.rows or value.shape[0] != samples:
                wrong = f"a value of shape {tuple(value.shape)}"
                advice = f"expected (n, {self.rows}, ...): n samples for each of the {self.rows} rows bound"
                raise ShapeError(self.label, wrong, advice)
            flat.append(value.flatten(0, 1))
        unpacked = source.unpack(self.label, flat[0] if isinstance(given, Tensor) else tuple(flat))
        reference = floating_tensor(self.layers)
        bound = self.reference
        if reference is not None and (reference.dtype, reference.device) != (bound.dtype, bound.device):
            own, other = (f"{tensor.dtype} on {tensor.device}" for tensor in (bound, reference))
            wrong = f"conditions of {own}, and a graph of {other}"
            raise InputTypeError(self.label, wrong, "the graph was converted or moved after bind: bind again")
        check_together(self.label, ((source, unpacked),), bound)
        return unpacked, samples


def rows_at_once(where: str, layers: nn.Module, values: Tensors, chunk: object, multiple: int = 1) -> int:
    """Return how many rows go through a graph together.

    Batch statistics are those of all rows, and noise depends on the place in the batch: neither can be cut.

    Arguments:
        where: The module, for the error.
        layers: The layers of the graph.
        values: The values, flattened to rows.
        chunk: The number asked for; None for the default.
        multiple: The rows of the conditions, which stay together.
    """
    everything = max(1, values[0].shape[0])
    if chunk is None:
        elements = sum([math.prod(value.shape[1:]) for value in values])
        most = ELEMENTS.get(values[0].device.type, _ELEMENTS_ELSEWHERE)
        if elements * everything <= most or torch.is_grad_enabled() or not is_eager() or _is_mixing(layers):
            return everything
        rows = most // max(1, elements)
    else:
        rows = require_count(where, "chunk", chunk)
        if rows < everything and _is_mixing(layers):
            advice = "noise and batch statistics depend on all rows of a pass: leave chunk out"
            raise GraphError(where, f"chunk={rows} for a graph with such layers", advice)
    return max(multiple, rows - rows % max(1, multiple))


def _is_mixing(layers: nn.Module) -> bool:
    norms = any(norm.training for norm in batch_norms(layers.modules()))
    return norms or any(isinstance(part, Stochastic) for part in layers.modules())


def run_in_chunks(run: Callable[..., Result], values: Tensors, rows: int) -> Result:
    """Run a function on ``rows`` rows of some values at a time; without gradients each result is written once."""
    count = values[0].shape[0]
    if rows >= count:
        return run(*values)
    results: list[Tensor] = []
    chunks = zip(*(value.split(rows) for value in values), strict=True)
    if torch.is_grad_enabled():
        found = [run(*chunk) for chunk in chunks]
        results = [torch.cat(parts) for parts in zip(*((*ys, log_det) for ys, log_det in found), strict=True)]
        return tuple(results[:-1]), results[-1]
    for place, chunk in enumerate(chunks):
        ys, log_det = run(*chunk)
        results = results or [part.new_empty(count, *part.shape[1:]) for part in (*ys, log_det)]
        for result, part in zip(results, (*ys, log_det), strict=True):
            result[place * rows : place * rows + part.shape[0]] = part
    return tuple(results[:-1]), results[-1]
