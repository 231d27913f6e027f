"""The reversible runner: training in constant memory, by rebuilding each node's inputs from its outputs."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result, call_checked
from invgraph.core.ports import Ports
from invgraph.core.vjp import ParameterGrads
from invgraph.errors import ArgumentError, GraphError, NumericsError
from invgraph.fused.dispatch import needs_grad
from invgraph.graph.bound import BoundGraph
from invgraph.graph.graph import Graph, require_graph
from invgraph.graph.run import Slots, gather
from invgraph.graph.schedule import Schedule, Step
from invgraph.reversible.backward import Backward
from invgraph.reversible.plan import Stage, plan
from invgraph.reversible.replay import (
    Autocast,
    buffer_states,
    changing_part,
    frozen_statistics,
    parameters_of_the_call,
    places_of,
    random_states,
    trainable,
)
from invgraph.shapes import Shape, Structured, Tensors

_WHERE = "reversible"


@final
class Reversible(Invertible):
    """A graph that trains with the activations of one node at a time, whatever its depth: see :func:`reversible`."""

    conditional = True
    arity = None

    def __init__(self, graph: Graph, anchors: int | None = None, tolerance: float | None = 1e-2) -> None:
        require_graph(graph, _WHERE)
        super().__init__(graph.in_shapes, graph.cond_shapes)
        if anchors is not None and (isinstance(anchors, bool) or not isinstance(anchors, int)):
            raise ArgumentError(_WHERE, f"anchors={anchors!r}", "anchors must be an int or None")
        if anchors is not None and anchors < 1:
            raise GraphError(_WHERE, f"anchors={anchors}", "an anchor every k nodes: k is at least 1")
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance > 0):
            raise GraphError(_WHERE, f"tolerance={tolerance!r}", "tolerance must be a positive number or None")
        self.graph = graph
        self.tolerance = tolerance
        self.directions = (
            Direction(graph.forward_schedule, graph.inverse_schedule, anchors),
            Direction(graph.inverse_schedule, graph.forward_schedule, anchors),
        )

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.graph.out_shapes

    def _inputs(self) -> Ports:
        return self.graph._inputs()

    def _outputs(self) -> Ports:
        return self.graph._outputs()

    def _conditions(self) -> Ports:
        return self.graph._conditions()

    def precompute(self, cs: Tensors) -> Any:
        return self.graph.precompute(cs)

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return self._run(self.directions[0], xs, given)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return self._run(self.directions[1], ys, given)

    def bind(self, conditions: Structured, *, gradients: bool = False) -> BoundGraph:
        """Bind the graph itself, as :meth:`invgraph.Graph.bind` does: samples don't need constant memory."""
        return self.graph.bind(conditions, gradients=gradients)

    def _run(self, direction: Direction, values: Tensors, given: Any) -> Result:
        parameters = trainable(self.graph)
        if isinstance(given, Precomputed) or not needs_grad(*values, *given, *parameters):
            return call_checked(self.graph, values, given, inverse=direction.schedule.inverse)
        call = Call(self.graph, direction, self.tolerance, len(values), len(given))
        *outputs, log_det = _Reversible.apply(call, *values, *given, *parameters)  # type: ignore[no-untyped-call]
        return tuple(outputs), log_det

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        self.graph._initialize(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.graph._initialize_inverse(ys, cs)


def reversible(graph: Graph, anchors: int | None = None, tolerance: float | None = 1e-2) -> Reversible:
    """The graph as a module with the same call and parameters that trains in constant memory.

    Forward keeps the outputs, conditions and inputs only. Backward walks the graph the other way: each node's inputs
    are rebuilt from its outputs, the node runs again with gradients, and its activations are freed before the next
    one's. A coupling's subnets are evaluated once for both. The inverse direction trains in the same way.

    A nested graph counts as one node; a :class:`~invgraph.FeatureNode` runs again once. Batch norm's running
    statistics are updated once. Under autocast backward uses the forward's settings.

    Arguments:
        graph: any graph; it keeps working by itself, with the same parameters.
        anchors: also keep the inputs of every k-th node, so that rounding can't build up over more than k inverses.
        tolerance: the largest error of a rebuilt value, relative to the largest kept number, that is let pass. It is
            checked at every anchor and at the inputs. None: no check, and no look at the data.

    Raises:
        GraphError: random numbers were drawn on the way (dropout in training mode), a layer other than batch norm
            changed its buffers (spectral_norm in training mode), or a second derivative was asked for.
        NumericsError: an output or condition was changed in place before backward, or a rebuilt value is further from
            the kept one than the tolerance; the message names the node that lost most precision.

    References:
        A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, "The Reversible Residual Network: Backpropagation Without
        Storing Activations", 2017, https://arxiv.org/abs/1707.04585

    Example:
        >>> import torch, invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> graph = ig.Graph(x, ig.chain(x, *[(ig.Coupling, args)] * 3))
        >>> z, log_det = ig.reversible(graph)(torch.ones(2, 4))
        >>> (z.square().sum() - log_det.sum()).backward()
        >>> all(p.grad is not None for p in graph.parameters())
        True
    """
    return Reversible(graph, anchors, tolerance)


class Direction:
    """One direction of a graph, and how its backward pass goes.

    Arguments:
        schedule: The direction.
        opposite: The other one.
        anchors: Keep the inputs of every k-th node; None: of no node.
    """

    def __init__(self, schedule: Schedule, opposite: Schedule, anchors: int | None) -> None:
        self.schedule, self.opposite = schedule, opposite
        self.stages: tuple[Stage, ...] = plan(schedule)
        every = len(schedule.steps) + 1 if anchors is None else anchors
        self.anchors = {
            step for index, step in enumerate(schedule.steps) if index and index % every == 0 and not step.feature
        }

    def run(self, graph: Graph, values: Tensors, cs: Tensors) -> tuple[Tensors, Tensor, dict[Step, Tensors]]:
        """Run the graph; return outputs, log-determinant, and the inputs of the anchors."""
        kept: dict[Step, Tensors] = {}

        def keep(step: Step, layer: Any, slots: Slots, log_det: Tensor) -> None:
            if step in self.anchors:
                kept[step] = gather(slots, step.inputs)

        before = keep if self.anchors else None
        outputs, log_det = graph._run(self.schedule, values, cs, before)
        return outputs, log_det, kept


class Call(NamedTuple):
    """One call of the runner without its tensors: first the values, then the conditions, then the parameters."""

    graph: Graph
    direction: Direction
    tolerance: float | None
    values: int
    conditions: int


class _Reversible(torch.autograd.Function):
    """The whole graph as one function: parameters are arguments, so that hooks on them (DDP) see their gradients."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        values, cs = tensors[: call.values], tensors[call.values : call.values + call.conditions]
        ctx.autocast = Autocast.current(values[0].device.type)
        random = random_states(values[0])
        buffers = buffer_states(call.graph)
        with ctx.autocast.restore():
            outputs, log_det, kept = call.direction.run(call.graph, values, cs)
        changed = changing_part(call.graph, buffers)
        if changed is not None:
            advice = "a second run would give something else: call .eval() on it, or train the plain graph"
            raise GraphError(_WHERE, f"{changed}, whose buffers change at each call", advice)
        if not all(map(torch.equal, random, random_states(values[0]))):
            advice = "dropout can't be run again with the same numbers: call .eval() on it, or train the plain graph"
            raise GraphError(_WHERE, "a node that draws random numbers", advice)
        ctx.call, ctx.anchors = call, list(kept)
        # A call may return an argument as it is; a function may not.
        outputs = tuple(y.view_as(y) if any(y is x for x in tensors) else y for y in outputs)
        ctx.places = places_of(call.graph, tensors[call.values + call.conditions :])
        ctx.save_for_backward(*outputs, *tensors, *(value for step in kept for value in kept[step]))
        ctx.counts = len(outputs), len(tensors)
        return (*outputs, log_det)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            advice = "second derivatives need stored activations: use the plain graph where create_graph=True"
            raise GraphError(_WHERE, "a double backward", advice)
        call: Call = ctx.call
        outputs, tensors, kept = _split(_saved(ctx), *ctx.counts)
        values, cs, parameters = _split(tensors, call.values, call.conditions)
        needed = ctx.needs_input_grad[1 + call.values + call.conditions :]
        grads = ParameterGrads([p for p, need in zip(parameters, needed, strict=True) if need])
        layers, direction = tuple(call.graph.layers.values()), call.direction
        back = Backward(direction.schedule, direction.opposite, layers, cs, grads, call.tolerance)
        anchored: dict[Step, Tensors] = {}
        for step in ctx.anchors:
            anchored[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]
        with (
            ctx.autocast.restore(), frozen_statistics(call.graph), torch.no_grad(),
            parameters_of_the_call(ctx.places, parameters),
        ):  # fmt: skip
            value_grads = back.run(direction.stages, outputs, grad_outputs, values, anchored)
        return None, *value_grads, *back.grads[: call.conditions], *grads.of(parameters)


def _split(tensors: Tensors, first: int, second: int) -> tuple[Tensors, Tensors, Tensors]:
    return tensors[:first], tensors[first : first + second], tensors[first + second :]


def _saved(ctx: Any) -> Tensors:
    try:
        saved: Tensors = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        advice = "an output, input, condition or parameter was changed in place before backward: change a copy"
        raise NumericsError(_WHERE, "saved values that are no longer there", advice) from error
    return saved
