"""The reversible runner: training in constant memory, by rebuilding each node's inputs from its outputs."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from invgraph.core.invertible import Invertible, Result
from invgraph.core.vjp import Gradients
from invgraph.errors import ArgumentError, GraphError, NumericsError
from invgraph.graph.bound import Bound
from invgraph.graph.graph import Graph, Step, held, require_graph
from invgraph.reversible.backward import Backward
from invgraph.reversible.plan import plan, schedule_of
from invgraph.reversible.replay import Autocast, FrozenStatistics, random_states
from invgraph.shapes import Ports, Shape, Structured, Tensors

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
        self.anchors = anchors
        self.tolerance = tolerance
        self.plans = tuple(plan(graph, inverse) for inverse in (False, True))

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.graph.out_shapes

    def _inputs(self) -> Ports:
        return self.graph._inputs()

    def _outputs(self) -> Ports:
        return self.graph._outputs()

    def _conditions(self) -> Ports:
        return self.graph._conditions()

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return self._apply_function(xs, cs, inverse=False)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return self._apply_function(ys, cs, inverse=True)

    def bind(self, conditions: Structured, *, gradients: bool = False) -> Bound:
        """As :meth:`invgraph.Graph.bind`; samples of a bound graph are not what needs constant memory."""
        return self.graph.bind(conditions, gradients=gradients)

    def _apply_function(self, values: Tensors, cs: Tensors, inverse: bool) -> Result:
        trained = tuple(p for p in self.graph.parameters() if p.requires_grad)
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in (*values, *cs, *trained)):
            return self.graph._inverse(values, cs) if inverse else self.graph._forward(values, cs)
        count = (len(values), len(cs))
        *outputs, log_det = _Walk.apply(self, inverse, count, *values, *cs, *trained)  # type: ignore[no-untyped-call]
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
        GraphError: random numbers were drawn on the way (dropout in training mode), or a second derivative was asked
            for.
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


class _Walk(torch.autograd.Function):
    """The whole graph as one function: parameters are arguments, so that hooks on them (DDP) see their gradients."""

    @staticmethod
    def forward(
        ctx: Any, runner: Reversible, inverse: bool, count: tuple[int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        values, cs = tensors[: count[0]], tensors[count[0] : sum(count)]
        ctx.autocast = Autocast.current(values[0].device.type)
        random = random_states(values[0])
        with ctx.autocast.again():
            outputs, log_det, kept = _run(runner, values, cs, inverse)
        if not all(torch.equal(a, b) for a, b in zip(random, random_states(values[0]), strict=True)):
            advice = "dropout can't be run again with the same numbers: call .eval() on it, or train the plain graph"
            raise GraphError(_WHERE, "a node that draws random numbers", advice)
        ctx.runner, ctx.inverse, ctx.count = runner, inverse, count
        ctx.parameters, ctx.arguments = tensors[sum(count) :], len(tensors)
        # A call may return an argument as it is; a function may not.
        outputs = tuple(y.view_as(y) if any(y is x for x in tensors) else y for y in outputs)
        ctx.save_for_backward(*outputs, *tensors, *kept)
        return (*outputs, log_det)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            advice = "second derivatives need stored activations: use the plain graph where create_graph=True"
            raise GraphError(_WHERE, "a double backward", advice)
        saved = _unpack(ctx)
        values, conditions = ctx.count
        ends = len(slopes) - 1
        outputs, arguments, kept = saved[:ends], saved[ends : ends + ctx.arguments], saved[ends + ctx.arguments :]
        wanted = [p for p, need in zip(ctx.parameters, ctx.needs_input_grad[3 + sum(ctx.count) :], strict=True) if need]
        runner, inverse = ctx.runner, ctx.inverse
        given_conditions = arguments[values : values + conditions]
        back = Backward(runner.graph, inverse, given_conditions, Gradients(wanted), runner.tolerance)
        with ctx.autocast.again(), FrozenStatistics(runner.graph), torch.no_grad():
            found = back.walk(
                runner.plans[inverse], outputs, slopes, arguments[:values], _anchored(runner, inverse, kept)
            )
        given = back.slopes[:conditions]
        trained = [
            back.gradients.of(p) if need else None
            for p, need in zip(ctx.parameters, ctx.needs_input_grad[3 + sum(ctx.count) :], strict=True)
        ]
        return (None, None, None, *found, *given, *trained)


def _unpack(ctx: Any) -> Tensors:
    try:
        saved: Tensors = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        advice = "an output, input, condition or parameter was changed in place before backward: change a copy"
        raise NumericsError(_WHERE, "saved values that are no longer there", advice) from error
    return saved


def _run(runner: Reversible, values: Tensors, cs: Tensors, inverse: bool) -> tuple[Tensors, Tensor, tuple[Tensor, ...]]:
    """The graph without gradients; outputs, log-determinant, and what the anchors keep."""
    graph = runner.graph
    schedule = schedule_of(graph, inverse)
    slots = graph._start(schedule, values, cs)
    log_det = values[0].new_zeros(values[0].shape[0])
    layers = tuple(graph.layers.values())
    kept: list[Tensor] = []
    for index, step in enumerate(schedule.steps):
        if _is_anchor(runner, index, step):
            kept.extend(held(slots, step.inputs))
        log_det = graph._advance(step, layers[step.layer], slots, log_det, inverse)
    return held(slots, schedule.ends), log_det, tuple(kept)


def _is_anchor(runner: Reversible, index: int, step: Step) -> bool:
    return runner.anchors is not None and index % runner.anchors == 0 and index > 0 and not step.feature


def _anchored(runner: Reversible, inverse: bool, kept: Tensors) -> dict[Step, Tensors]:
    """What was kept, by the step whose inputs it is."""
    found: dict[Step, Tensors] = {}
    for index, step in enumerate(schedule_of(runner.graph, inverse).steps):
        if _is_anchor(runner, index, step):
            found[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]
    return found
