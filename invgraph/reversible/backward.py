"""A graph as one autograd function, whose backward pass rebuilds every node's inputs from its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invgraph.core.call import call_checked
from invgraph.core.invertible import Invertible
from invgraph.core.stochastic import draw_seeds, same_noise
from invgraph.core.vjp import Grads, ParameterGrads, add_grads, as_leaf, vjp, vjp_from_inputs
from invgraph.errors import GraphError, NumericsError
from invgraph.fused.switch import fused
from invgraph.graph.graph import Graph
from invgraph.graph.run import Slots, call_feature, fill, gather, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.reversible.call_state import (
    Autocast,
    buffer_versions,
    drop,
    frozen_statistics,
    frozen_versions,
    modes_of,
    one_thread,
    part_with_changed_buffers,
    places_of,
    random_states,
    require_unchanged,
    same_modes,
    saved_tensors,
    tensors_of_the_call,
)
from invgraph.reversible.plan import Direction
from invgraph.shapes import Tensors
from invgraph.torch_internals import batch_norms, is_batched_grad


class Call(NamedTuple):
    """Call of the runner without its tensors: the values, then the conditions, then the parameters.

    Attributes:
        graph: Graph to run.
        parts: All modules of the graph; to look for them takes a while in a deep one.
        frozen: Their tensors that need no gradient.
        direction: Direction of the call.
        tolerance: Maximum relative reconstruction error; None for no check.
        value_count: Number of values.
        condition_count: Number of conditions.
    """

    graph: Graph
    parts: Sequence[nn.Module]
    frozen: Tensors
    direction: Direction
    tolerance: float | None
    value_count: int
    condition_count: int


class ReversibleFunction(torch.autograd.Function):
    """Whole graph as one autograd function; parameters are arguments, so that hooks on them (DDP) see their grads."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        values, cs = tensors[: call.value_count], tensors[call.value_count : call.value_count + call.condition_count]
        ctx.autocast = Autocast.current(values[0].device.type)
        ctx.seeds, random = draw_seeds(call.graph, values[0]), random_states(values[0])
        buffers, ctx.modes, ctx.norms = buffer_versions(call.parts), modes_of(call.parts), batch_norms(call.parts)
        with ctx.autocast.restore(), same_noise(ctx.seeds, first=True), one_thread(call.graph, ctx.norms):
            outputs, log_det, kept = call.direction.run(call.graph, values, cs)
            again = outputs
            if not all(map(torch.equal, random, random_states(values[0]))):  # by a node, or in another thread
                with frozen_statistics(ctx.norms):
                    again = call.direction.run(call.graph, values, cs)[0]
        changed = part_with_changed_buffers(call.graph, call.parts, buffers)
        if changed is not None:
            advice = "a second run would give something else: call .eval() on it, or train the plain graph"
            raise GraphError("reversible", f"{changed}, whose buffers change at each call", advice)
        drawn = again is not outputs and drop(call.parts)
        if drawn or not all(a.allclose(b, 0, 0, equal_nan=True) for a, b in zip(outputs, again, strict=True)):
            advice = "dropout can't be repeated with the same mask: call .eval() on it, or train the graph itself"
            raise GraphError("reversible", "a node that draws random numbers", advice)
        ctx.call, ctx.anchors, ctx.versions = call, list(kept), frozen_versions(call.frozen)
        # A graph may return an argument itself; an autograd function may not.
        outputs = tuple(y.view_as(y) if any(y is x for x in tensors) else y for y in outputs)
        ctx.places = places_of(call.parts, (*tensors[call.value_count + call.condition_count :], *call.frozen))
        ctx.save_for_backward(*outputs, *tensors, *(value for step in kept for value in kept[step]))
        ctx.counts = len(outputs), len(tensors)
        return (*outputs, log_det)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            advice = "second derivatives need stored activations: call the graph itself where create_graph=True"
            raise GraphError("reversible", "a double backward", advice)
        call: Call = ctx.call
        outputs, tensors, kept = _split(saved_tensors(ctx), *ctx.counts)
        values, cs, parameters = _split(tensors, call.value_count, call.condition_count)
        require_unchanged(call.frozen, ctx.versions)
        needed = ctx.needs_input_grad[1 + call.value_count + call.condition_count :]
        grads = ParameterGrads([p for p, need in zip(parameters, needed, strict=True) if need])
        back = Backward(call.direction, tuple(call.graph.layers.values()), cs, grads, call.tolerance)
        anchored: dict[Step, Tensors] = {}
        for step in ctx.anchors:
            anchored[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]
        with (
            ctx.autocast.restore(), one_thread(call.graph, ctx.norms), same_modes(ctx.modes), torch.no_grad(),
            frozen_statistics(ctx.norms), tensors_of_the_call(ctx.places, (*parameters, *call.frozen)),
            same_noise(ctx.seeds) if ctx.seeds else nullcontext(),
            # Kernels take one gradient; autograd may ask for several at once (is_grads_batched).
            fused(False) if any(map(is_batched_grad, grad_outputs)) else nullcontext(),
        ):  # fmt: skip
            value_grads = back.run(outputs, grad_outputs[:-1], grad_outputs[-1], values, anchored)
        return None, *value_grads, *back.grads[: call.condition_count], *grads.of(parameters)


def _split(tensors: Tensors, first: int, second: int) -> tuple[Tensors, Tensors, Tensors]:
    return tensors[:first], tensors[first : first + second], tensors[first + second :]


class Backward:
    """One backward pass: values of the slots, rebuilt in the opposite direction, and their gradients.

    Arguments:
        direction: The direction of the call.
        layers: The layers of the graph, in order.
        cs: The conditions of the call.
        parameters: Where the gradients of parameters are added.
        tolerance: Maximum error of rebuilt values, as :func:`_error` measures it; None: not checked.
    """

    def __init__(
        self,
        direction: Direction,
        layers: Sequence[nn.Module],
        cs: Tensors,
        parameters: ParameterGrads,
        tolerance: float | None,
    ) -> None:
        self.direction, self.layers = direction, layers
        self.parameters, self.tolerance = parameters, tolerance
        self.frozen = {slot for slot, c in enumerate(cs) if not c.requires_grad}
        self.cs = tuple([c.detach() for c in cs])
        self.values: Slots = [*self.cs, *[None] * (direction.schedule.slots - len(cs))]
        self.grads: Slots = [None] * direction.schedule.slots
        self.features: dict[Step, tuple[Tensors, Tensors]] = {}

    def run(
        self,
        outputs: Tensors,
        grad_outputs: Tensors,
        log_det_grad: Tensor,
        starts: Tensors,
        anchored: Mapping[Step, Tensors],
    ) -> list[Tensor | None]:
        """Return the gradients of the call's values; those of its conditions are in ``grads`` then.

        Arguments:
            outputs: What the call returned.
            grad_outputs: The gradients of the outputs.
            log_det_grad: The gradient of the log-determinant.
            starts: The values of the call.
            anchored: Inputs of steps that were kept.
        """
        for slot, value, grad in zip(self.direction.schedule.ends, outputs, grad_outputs, strict=True):
            self.values[slot], self.grads[slot] = value.detach(), grad
        for kind, step in self.direction.stages:
            if kind == "feature":
                self._feature(step)
            elif kind == "feature gradient":
                self._feature_gradient(step)
            elif kind == "rebuild":
                self._rebuild(step)
            else:
                self._layer(step, log_det_grad, inputs_known=kind == "differentiate")
            if anchored and kind in ("rebuild and differentiate", "rebuild") and step in anchored:
                self._compare(step.inputs, anchored[step], starts)
                self._put(step.inputs, tuple([value.detach() for value in anchored[step]]))
        self._compare(self.direction.schedule.starts, starts, starts)
        return [self.grads[slot] for slot in self.direction.schedule.starts]

    def _layer(self, step: Step, log_det_grad: Tensor, inputs_known: bool) -> None:
        """Find the gradients of a node; its inputs too, unless they are known already."""
        layer = self.layers[step.layer]
        assert isinstance(layer, Invertible)
        cs = tuple([self._condition(slot) for slot in step.conditions])
        grad_outputs = (*[self.grads[slot] for slot in step.outputs], log_det_grad)
        values = self._get(step.inputs if inputs_known else step.outputs)
        self._free(step.outputs)
        backward = partial(vjp_from_inputs, layer) if inputs_known else layer._vjp_from_outputs
        found = backward(values, cs, grad_outputs, self.parameters, inverse=self.direction.schedule.inverse)
        self._put(step.inputs, found.inputs)
        self._add(step.inputs, found.input_grads)
        self._add(step.conditions, found.condition_grads)

    def _condition(self, slot: int) -> Tensor:
        value = self.values[slot]
        assert value is not None
        return value if slot in self.frozen else as_leaf(value)

    def _rebuild(self, step: Step) -> None:
        """Find a node's inputs alone, before its turn, because another node is conditioned on them."""
        layer = self.layers[step.layer]
        assert isinstance(layer, Invertible)
        ys, cs = self._get(step.outputs), self._get(step.conditions)
        xs, _ = call_checked(layer, ys, cs, inverse=self.direction.opposite.inverse)
        self._put(step.inputs, xs)

    def _feature(self, step: Step) -> None:
        """Run a conditioning network; its activations are kept until every node that reads it is done."""
        leaves = tuple([as_leaf(value) for value in self._get(step.conditions)])
        with torch.enable_grad():
            outputs = call_feature(self.layers[step.layer], leaves, leaves[0].dtype)
        self.features[step] = (leaves, outputs)
        self._put(step.outputs, [value.detach() for value in outputs])

    def _feature_gradient(self, step: Step) -> None:
        leaves, outputs = self.features.pop(step)
        parameters = self.parameters.needed(self.layers[step.layer])
        found = vjp(outputs, [self.grads[slot] for slot in step.outputs], (*leaves, *parameters))
        self._free(step.outputs)
        self._add(step.conditions, found[: len(leaves)])
        self.parameters.add(parameters, found[len(leaves) :])

    def _get(self, slots: tuple[int, ...]) -> Tensors:
        return tuple([self.values[slot] for slot in slots])  # type: ignore[misc]  # the plan fills a slot in time

    def _put(self, slots: tuple[int, ...], values: Sequence[Tensor]) -> None:
        for slot, value in zip(slots, values, strict=True):
            self.values[slot] = value

    def _free(self, slots: tuple[int, ...]) -> None:
        """Empty the slots of a node's outputs: every node that reads a value comes before the one that makes it."""
        for slot in slots:
            self.values[slot] = self.grads[slot] = None

    def _add(self, slots: tuple[int, ...], grads: Grads) -> None:
        for slot, grad in zip(slots, grads, strict=True):
            self.grads[slot] = add_grads(self.grads[slot], grad)

    def _compare(self, slots: tuple[int, ...], kept: Tensors, starts: Tensors) -> None:
        if self.tolerance is None:
            return
        for value, exact in zip(self._get(slots), kept, strict=True):
            error = _error(value, exact)
            if not error <= self.tolerance:
                if not bool(exact.isfinite().all()):
                    advice = "they can't be rebuilt: leave such samples out, or find their source with check_finite"
                    raise NumericsError("reversible", "values with NaN or infinity", advice)
                given = f"rebuilt values whose relative error is {error:.1e} (tolerance {self.tolerance:.0e})"
                advice = _least_precise(self.direction, self.layers, starts, self.cs)
                raise NumericsError("reversible", given, advice)


def _error(value: Tensor, exact: Tensor) -> float:
    """Return the largest difference, relative to the largest exact element, or to 1 if that is smaller."""
    if exact.numel() == 0:
        return 0.0
    return float((value - exact).abs().max() / exact.abs().max().clamp_min(1.0))


def _least_precise(direction: Direction, layers: Sequence[nn.Module], values: Tensors, cs: Tensors) -> str:
    """Return the node in which the error of the rebuilt values grows most, and what to do about it."""
    schedule = direction.schedule
    exact = _all_slots(schedule, layers, tuple([v.detach() for v in values]), cs)
    rebuilt = _all_slots(direction.opposite, layers, gather(exact, schedule.ends), cs)
    tiny = torch.finfo(values[0].dtype).eps

    def error(slots: tuple[int, ...]) -> float:
        errors = [_error(a, b) for a, b in zip(gather(rebuilt, slots), gather(exact, slots), strict=True)]
        return max((e if e == e else float("inf") for e in errors), default=0.0)

    steps = [step for step in schedule.steps if not step.feature]
    worst = max(steps, key=lambda step: error(step.inputs) / (error(step.outputs) + tiny))
    layer = layers[worst.layer]
    node = f"node {schedule.names[worst.layer]!r} ({type(layer).__name__})"
    assert isinstance(layer, Invertible)
    outside = layer._find_outside(gather(exact, worst.inputs), inverse=schedule.inverse)
    if outside is not None:
        return f"{node} can't give back what it got: {outside}"
    return f"{node} loses most precision: lower its clamp, set anchors, or train in float64"


def _all_slots(schedule: Schedule, layers: Sequence[nn.Module], values: Tensors, cs: Tensors) -> Slots:
    """Return the values of all slots after a run of the graph."""
    slots = fill(schedule, values, cs)
    run(schedule.keep_everything(), layers, slots)
    return slots
