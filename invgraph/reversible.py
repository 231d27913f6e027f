"""The reversible runner: training in constant memory, by rebuilding each node's inputs from its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from invgraph.bound import features
from invgraph.errors import ArgumentError, GraphError, NumericsError
from invgraph.graph import Graph, Schedule, Step, require_graph
from invgraph.invertible import Invertible, Result
from invgraph.shapes import Ports, Shape, Structured, Tensors
from invgraph.undo import Gradients, Slopes, added, again, leaf, pull, undo

_WHERE = "reversible"


class Stage(NamedTuple):
    """One thing that the backward pass does: see :func:`_plan`."""

    kind: str
    step: Step


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
        self.plans = tuple(_plan(graph, inverse) for inverse in (False, True))

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

    def initialize(self, *batch: Structured) -> None:
        """As :meth:`invgraph.Graph.initialize`."""
        self.graph.initialize(*batch)


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
        ctx.autocast = _Autocast.current(values[0].device.type)
        random = _random_states(values[0])
        with ctx.autocast.again():
            outputs, log_det, kept = _run(runner, values, cs, inverse)
        if not all(torch.equal(a, b) for a, b in zip(random, _random_states(values[0]), strict=True)):
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
        back = _Backward(ctx.runner, ctx.inverse, arguments[values : values + conditions], Gradients(wanted))
        with ctx.autocast.again(), _FrozenStatistics(ctx.runner.graph), torch.no_grad():
            found = back.walk(outputs, slopes, arguments[:values], kept)
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
    schedule = _schedule(graph, inverse)
    slots = graph._start(schedule, values, cs)
    log_det = values[0].new_zeros(values[0].shape[0])
    layers = tuple(graph.layers.values())
    kept: list[Tensor] = []
    for index, step in enumerate(schedule.steps):
        if _is_anchor(runner, index, step):
            kept.extend(_held(slots, step.inputs))
        log_det = graph._advance(step, layers[step.layer], slots, log_det, inverse)
    return _held(slots, schedule.ends), log_det, tuple(kept)


class _Backward:
    """One backward pass: values and slopes (gradients) of the slots, rebuilt against the direction of the call."""

    def __init__(self, runner: Reversible, inverse: bool, cs: Tensors, gradients: Gradients) -> None:
        self.runner, self.inverse, self.gradients = runner, inverse, gradients
        self.layers = tuple(runner.graph.layers.values())
        self.values: list[Tensor | None] = [None] * runner.graph.slots
        self.slopes: list[Tensor | None] = [None] * runner.graph.slots
        self.features: dict[Step, tuple[Tensors, Tensors]] = {}
        self.frozen = {slot for slot, c in enumerate(cs) if not c.requires_grad}
        self.cs = tuple(c.detach() for c in cs)
        self.values[: len(cs)] = self.cs

    def walk(self, outputs: Tensors, slopes: Tensors, starts: Tensors, kept: Tensors) -> list[Tensor | None]:
        """Gradients of the call's values; those of parameters are in ``gradients``, of conditions in ``slopes``."""
        schedule = _schedule(self.runner.graph, self.inverse)
        for slot, value, slope in zip(schedule.ends, outputs, slopes, strict=False):
            self.values[slot], self.slopes[slot] = value.detach(), slope
        anchored = _anchored(self.runner, schedule, kept)
        for kind, step in self.runner.plans[self.inverse]:
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
            for slot, value in zip(step.conditions, _held(self.values, step.conditions), strict=True)
        )
        slopes = (*(self.slopes[slot] for slot in step.outputs), slope_log_det)
        run = again if known else undo
        values = _held(self.values, step.inputs if known else step.outputs)
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
        ys, cs = _held(self.values, step.outputs), _held(self.values, step.conditions)
        xs, _ = layer(ys, cs) if self.inverse else layer.inverse(ys, cs)
        for slot, value in zip(step.inputs, xs, strict=True):
            self.values[slot] = value

    def _feature(self, step: Step) -> None:
        """A conditioning network, with its activations kept until every node that reads it is done."""
        leaves = tuple(leaf(value) for value in _held(self.values, step.conditions))
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
        tolerance = self.runner.tolerance
        if tolerance is None:
            return
        for value, exact in zip(_held(self.values, slots), kept, strict=True):
            error = _error(value, exact)
            if not error <= tolerance:
                name = _worst(self.runner.graph, starts, self.cs, self.inverse)
                given = f"rebuilt values that differ by {error:.1e} of the largest (tolerance {tolerance:.0e})"
                advice = f"{name} loses most precision: lower its clamp, set anchors, or train in float64"
                raise NumericsError(_WHERE, given, advice)


def _error(value: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest number; NaN where either has one."""
    if exact.numel() == 0:
        return 0.0
    return float((value - exact).abs().max() / exact.abs().max().clamp_min(1.0))


def _worst(graph: Graph, values: Tensors, cs: Tensors, inverse: bool) -> str:
    """The node in which the error of the rebuilt values grows most."""
    exact = _all_slots(graph, tuple(v.detach() for v in values), cs, inverse)
    rebuilt = _all_slots(graph, _held(exact, _schedule(graph, inverse).ends), cs, not inverse)
    tiny = torch.finfo(values[0].dtype).eps

    def error(slots: tuple[int, ...]) -> float:
        errors = [_error(a, b) for a, b in zip(_held(rebuilt, slots), _held(exact, slots), strict=True)]
        return max((e if e == e else float("inf") for e in errors), default=0.0)

    named = list(graph.layers.items())
    steps = [step for step in _schedule(graph, inverse).steps if not step.feature]
    label, layer = named[max(steps, key=lambda step: error(step.inputs) / (error(step.outputs) + tiny)).layer]
    return f"node {label!r} ({type(layer).__name__})"


def _all_slots(graph: Graph, values: Tensors, cs: Tensors, inverse: bool) -> list[Tensor | None]:
    """What every slot holds on the way through the graph."""
    schedule = _schedule(graph, inverse)
    slots = graph._start(schedule, values, cs)
    log_det = values[0].new_zeros(values[0].shape[0])
    layers = tuple(graph.layers.values())
    for step in schedule.steps:
        log_det = graph._advance(step._replace(idle=()), layers[step.layer], slots, log_det, inverse)
    return slots


def _schedule(graph: Graph, inverse: bool) -> Schedule:
    return graph.inverse_schedule if inverse else graph.forward_schedule


def _is_anchor(runner: Reversible, index: int, step: Step) -> bool:
    return runner.anchors is not None and index % runner.anchors == 0 and index > 0 and not step.feature


def _anchored(runner: Reversible, schedule: Schedule, kept: Tensors) -> dict[Step, Tensors]:
    """What was kept, by the step whose inputs it is."""
    found: dict[Step, Tensors] = {}
    for index, step in enumerate(schedule.steps):
        if _is_anchor(runner, index, step):
            found[step], kept = kept[: len(step.inputs)], kept[len(step.inputs) :]
    return found


def _held(slots: list[Tensor | None], places: tuple[int, ...]) -> Tensors:
    values = tuple(slots[place] for place in places)
    assert all(value is not None for value in values)
    return values  # type: ignore[return-value]


def _plan(graph: Graph, inverse: bool) -> tuple[Stage, ...]:
    """What backward does, in order.

    Gradients go against the call's schedule: every reader of a value before its maker. A node conditioned on a value
    inside the graph needs that value before the node that made it is undone: then the value's reader is rebuilt early
    ("rebuild"), and its own gradient follows later from its known inputs ("again").
    """
    schedule = _schedule(graph, inverse)
    reader = {slot: step for step in schedule.steps if not step.feature for slot in step.inputs}
    feature = {slot: step for step in schedule.steps if step.feature for slot in step.outputs}
    known = {*range(len(graph.cond_shapes)), *schedule.ends}
    stages: list[Stage] = []
    early: set[Step] = set()
    for step in reversed(schedule.steps):
        if step.feature:
            _provide(step.outputs, known, reader, feature, early, stages)
            stages.append(Stage("feature gradient", step))
            continue
        _provide((*step.conditions, *(() if step in early else step.outputs)), known, reader, feature, early, stages)
        stages.append(Stage("again" if step in early else "undo", step))
        known.update(step.inputs)
    return tuple(stages)


def _provide(
    slots: tuple[int, ...],
    known: set[int],
    reader: dict[int, Step],
    feature: dict[int, Step],
    early: set[Step],
    stages: list[Stage],
) -> None:
    """Stages that make these slots known, without recursion: graphs may be deep."""
    waiting = list(slots)
    while waiting:
        slot = waiting[-1]
        if slot in known:
            waiting.pop()
            continue
        step = feature.get(slot) or reader[slot]
        needed = [s for s in (*step.conditions, *(() if step.feature else step.outputs)) if s not in known]
        if needed:
            waiting.extend(needed)
            continue
        stages.append(Stage("feature" if step.feature else "rebuild", step))
        if not step.feature:
            early.add(step)
        known.update(step.outputs if step.feature else step.inputs)


class _Autocast(NamedTuple):
    """The autocast settings of the forward call, for the backward pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device: str) -> _Autocast:
        if not torch.amp.is_autocast_available(device):
            return cls("cpu", False, torch.bfloat16)
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def again(self) -> torch.autocast:
        # Without the cache: it would hand weights that were cast without gradient to the run with gradient.
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


def _random_states(reference: Tensor) -> tuple[Tensor, ...]:
    states = [torch.get_rng_state()]
    if reference.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(reference.device))
    return tuple(states)


class _FrozenStatistics:
    """Batch norm's running statistics were updated by the forward call; running again leaves them alone."""

    def __init__(self, graph: Graph) -> None:
        self.norms = [m for m in graph.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for norm in self.norms:
            norm.track_running_stats = True
