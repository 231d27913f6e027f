"""The reversible runner's backward pass: every node's inputs rebuilt from its outputs, and the gradients on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invgraph.core.invertible import Invertible
from invgraph.core.vjp import Gradients, Slopes, added, again, leaf, pull, undo
from invgraph.errors import NumericsError
from invgraph.graph.bound import features
from invgraph.graph.graph import Graph, Step, held
from invgraph.reversible.plan import Stage, schedule_of
from invgraph.shapes import Tensors


class Backward:
    """One backward pass: values and slopes (gradients) of the slots, rebuilt against the direction of the call.

    Arguments:
        graph: the graph.
        inverse: whether it was its inverse that was called.
        cs: the call's conditions.
        gradients: where those of parameters are added.
        tolerance: how far a rebuilt value may be from a kept one, relative to the largest; None: it is not checked.
    """

    def __init__(self, graph: Graph, inverse: bool, cs: Tensors, gradients: Gradients, tolerance: float | None) -> None:
        self.graph, self.inverse, self.gradients, self.tolerance = graph, inverse, gradients, tolerance
        self.layers = tuple(graph.layers.values())
        self.values: list[Tensor | None] = [None] * graph.slots
        self.slopes: list[Tensor | None] = [None] * graph.slots
        self.features: dict[Step, tuple[Tensors, Tensors]] = {}
        self.frozen = {slot for slot, c in enumerate(cs) if not c.requires_grad}
        self.cs = tuple(c.detach() for c in cs)
        self.values[: len(cs)] = self.cs

    def walk(
        self,
        stages: Sequence[Stage],
        outputs: Tensors,
        slopes: Tensors,
        starts: Tensors,
        anchored: Mapping[Step, Tensors],
    ) -> list[Tensor | None]:
        """Gradients of the call's values; those of parameters are in ``gradients``, of conditions in ``slopes``.

        Arguments:
            stages: what to do, from :func:`~invgraph.reversible.plan.plan`.
            outputs: what the call returned.
            slopes: gradients of the outputs and of the log-determinant.
            starts: the values of the call.
            anchored: inputs of steps that were kept.
        """
        schedule = schedule_of(self.graph, self.inverse)
        for slot, value, slope in zip(schedule.ends, outputs, slopes, strict=False):
            self.values[slot], self.slopes[slot] = value.detach(), slope
        for kind, step in stages:
            if kind == "feature":
                self._feature(step)
            elif kind == "feature gradient":
                self._feature_gradient(step)
            elif kind == "rebuild":
                self._rebuild(step)
            else:
                self._undo(step, slopes[-1], known=kind == "again")
            if kind in ("undo", "rebuild") and step in anchored:
                self._compare(step.inputs, anchored[step], starts)
                self._put(step.inputs, tuple(value.detach() for value in anchored[step]))
        self._compare(schedule.starts, starts, starts)
        return [self.slopes[slot] for slot in schedule.starts]

    def _undo(self, step: Step, slope_log_det: Tensor, known: bool) -> None:
        """A node's gradients; its inputs too, unless they are known already."""
        layer = self.layers[step.layer]
        assert isinstance(layer, Invertible)
        given = tuple(
            value if slot in self.frozen else leaf(value)
            for slot, value in zip(step.conditions, held(self.values, step.conditions), strict=True)
        )
        slopes = (*(self.slopes[slot] for slot in step.outputs), slope_log_det)
        run = again if known else undo
        values = held(self.values, step.inputs if known else step.outputs)
        # Nothing needs the outputs any more: every reader of a value comes before its maker.
        self._put(step.outputs, (None,) * len(step.outputs))
        done = run(layer, values, given, slopes, self.gradients, inverse=self.inverse)
        self._put(step.inputs, done.values)
        self._add(step.inputs, done.slopes)
        self._add(step.conditions, done.conditions)

    def _rebuild(self, step: Step) -> None:
        """A node's inputs alone, before its turn, because another node is conditioned on them."""
        layer = self.layers[step.layer]
        assert isinstance(layer, Invertible)
        ys, cs = held(self.values, step.outputs), held(self.values, step.conditions)
        xs, _ = layer(ys, cs) if self.inverse else layer.inverse(ys, cs)
        for slot, value in zip(step.inputs, xs, strict=True):
            self.values[slot] = value

    def _feature(self, step: Step) -> None:
        """A conditioning network, with its activations kept until every node that reads it is done."""
        leaves = tuple(leaf(value) for value in held(self.values, step.conditions))
        with torch.enable_grad():
            outputs = features(self.layers[step.layer](*leaves), leaves[0].dtype)
        self.features[step] = (leaves, outputs)
        for slot, value in zip(step.outputs, outputs, strict=True):
            self.values[slot] = value.detach()

    def _feature_gradient(self, step: Step) -> None:
        leaves, outputs = self.features.pop(step)
        parameters = self.gradients.wanted(self.layers[step.layer])
        found = pull(outputs, [self.slopes[slot] for slot in step.outputs], (*leaves, *parameters))
        self._put(step.outputs, (None,) * len(step.outputs))
        self._add(step.conditions, found[: len(leaves)])
        self.gradients.add(parameters, found[len(leaves) :])

    def _put(self, slots: tuple[int, ...], values: Sequence[Tensor | None]) -> None:
        for slot, value in zip(slots, values, strict=True):
            self.values[slot] = value
            if value is None:
                self.slopes[slot] = None

    def _add(self, slots: tuple[int, ...], slopes: Slopes) -> None:
        for slot, slope in zip(slots, slopes, strict=True):
            self.slopes[slot] = added(self.slopes[slot], slope)

    def _compare(self, slots: tuple[int, ...], kept: Tensors, starts: Tensors) -> None:
        if self.tolerance is None:
            return
        for value, exact in zip(held(self.values, slots), kept, strict=True):
            error = _error(value, exact)
            if not error <= self.tolerance:
                name = _worst(self.graph, starts, self.cs, self.inverse)
                given = f"rebuilt values that differ by {error:.1e} of the largest (tolerance {self.tolerance:.0e})"
                advice = f"{name} loses most precision: lower its clamp, set anchors, or train in float64"
                raise NumericsError("reversible", given, advice)


def _error(value: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest number; NaN where either has one."""
    if exact.numel() == 0:
        return 0.0
    return float((value - exact).abs().max() / exact.abs().max().clamp_min(1.0))


def _worst(graph: Graph, values: Tensors, cs: Tensors, inverse: bool) -> str:
    """The node in which the error of the rebuilt values grows most."""
    exact = _all_slots(graph, tuple(v.detach() for v in values), cs, inverse)
    rebuilt = _all_slots(graph, held(exact, schedule_of(graph, inverse).ends), cs, not inverse)
    tiny = torch.finfo(values[0].dtype).eps

    def error(slots: tuple[int, ...]) -> float:
        errors = [_error(a, b) for a, b in zip(held(rebuilt, slots), held(exact, slots), strict=True)]
        return max((e if e == e else float("inf") for e in errors), default=0.0)

    named = list(graph.layers.items())
    steps = [step for step in schedule_of(graph, inverse).steps if not step.feature]
    label, layer = named[max(steps, key=lambda step: error(step.inputs) / (error(step.outputs) + tiny)).layer]
    return f"node {label!r} ({type(layer).__name__})"


def _all_slots(graph: Graph, values: Tensors, cs: Tensors, inverse: bool) -> list[Tensor | None]:
    """What every slot holds on the way through the graph."""
    schedule = schedule_of(graph, inverse)
    slots = graph._start(schedule, values, cs)
    log_det = values[0].new_zeros(values[0].shape[0])
    layers = tuple(graph.layers.values())
    for step in schedule.steps:
        log_det = graph._advance(step._replace(idle=()), layers[step.layer], slots, log_det, inverse)
    return slots
