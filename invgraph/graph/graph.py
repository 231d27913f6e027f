"""The graph as one module: two schedules over the same slots, and the plain runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, GraphError, NumericsError
from invgraph.graph.bound import Bound, features
from invgraph.graph.compiled import compiled
from invgraph.graph.node import FeatureNode, Node, Sources, Value
from invgraph.graph.run import run_layer
from invgraph.graph.summary import summarize
from invgraph.graph.wiring import Wiring, wire
from invgraph.shapes import Ports, Shape, Structured, Tensors


class Step(NamedTuple):
    """One node of a schedule, in places: which layer, and the slots of what it transforms, reads and makes."""

    layer: int
    feature: bool
    inputs: tuple[int, ...]
    conditions: tuple[int, ...]
    outputs: tuple[int, ...]
    idle: tuple[int, ...]
    """Slots that nothing reads after this step, in the forward and in the inverse schedule alike."""


class Schedule(NamedTuple):
    """The steps of one direction, and the slots where its values start and end."""

    steps: tuple[Step, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


@final
class Graph(Invertible):
    """A declared graph of nodes as one invertible module.

    ``outputs, log_det = graph(inputs, conditions)`` and ``inputs, log_det = graph.inverse(outputs, conditions)``. Each
    of inputs, outputs and conditions has the structure it was declared with: one node alone is a tensor, a list or
    tuple of nodes is a tuple of tensors.

    Graphs declared over the same nodes share their layers. A graph is a layer too: ``Node(x, graph)``.

    Arguments:
        inputs: the :class:`InputNode` or a list of them.
        outputs: the node or value, or a list of them, that the network returns.
        conditions: the :class:`ConditionNode` or a list of them.
        check_finite: raise :class:`~invgraph.errors.NumericsError` at the first node that makes a NaN or an infinity,
            or at the input or condition that brings one (a debugging aid: it looks at the data after every node).

    Log-det:
        The sum over the nodes, nats per sample, of the direction taken.

    Raises:
        GraphError: the nodes do not make an invertible graph; the message says where and why.

    Example:
        >>> import torch, invgraph as ig
        >>> x = ig.InputNode(2, name="x")
        >>> c = ig.ConditionNode(3, name="c")
        >>> h = ig.Node(x, ig.Permute, {"seed": 0})
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> h = ig.Node(h, ig.Coupling, args, conditions=c, name="coupling")
        >>> graph = ig.Graph(inputs=x, outputs=h, conditions=c)
        >>> z, log_det = graph(torch.zeros(5, 2), torch.zeros(5, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    conditional = True
    arity = None

    def __init__(
        self, inputs: Sources, outputs: Sources, conditions: Sources = (), *, check_finite: bool = False
    ) -> None:
        wiring = wire(inputs, outputs, conditions)
        require_flag("Graph", "check_finite", check_finite)
        super().__init__(
            tuple(value.shape for value in wiring.inputs), tuple(value.shape for value in wiring.conditions)
        )
        self.check_finite = check_finite
        single_in, single_out, single_given = wiring.single
        self._sides = (
            wiring.ports("input", wiring.inputs, single_in),
            wiring.ports("output", wiring.outputs, single_out),
            wiring.ports("condition", wiring.conditions, single_given),
        )
        self.layers = nn.ModuleDict()
        for node in wiring.nodes:
            if isinstance(node, (Node, FeatureNode)):
                name = wiring.names[node]
                self.layers[name] = node.module
                if isinstance(node.module, Invertible):
                    node.module.label = f"node {name!r} ({type(node.module).__name__})"
        self.slots, self.forward_schedule, self.inverse_schedule = _schedules(wiring)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self._sides[1].shapes

    def __getitem__(self, name: str) -> nn.Module:
        """The layer of a node, by the node's name."""
        if not isinstance(name, str) or name not in self.layers:
            names = ", ".join(self.layers)
            raise GraphError("Graph", f"name {name!r}", f"no such node; the graph has {names}")
        return self.layers[name]

    def _inputs(self) -> Ports:
        return self._sides[0]

    def _outputs(self) -> Ports:
        return self._sides[1]

    def _conditions(self) -> Ports:
        return self._sides[2]

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return self._run(self.forward_schedule, xs, cs, inverse=False)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return self._run(self.inverse_schedule, ys, cs, inverse=True)

    def share(self, cs: Tensors) -> Any:
        """The graph bound to the conditions, where it is a layer of one that is."""
        return Bound(self, self._conditions().pack(cs), torch.is_grad_enabled()) if cs else cs

    def _forward_shared(self, xs: Tensors, shared: Any) -> Result:
        *ys, log_det = shared._walk(self.forward_schedule, xs, inverse=False)
        return tuple(ys), log_det

    def _inverse_shared(self, ys: Tensors, shared: Any) -> Result:
        *xs, log_det = shared._walk(self.inverse_schedule, ys, inverse=True)
        return tuple(xs), log_det

    def _run(self, schedule: Schedule, values: Tensors, conditions: Tensors, inverse: bool) -> Result:
        log_det = values[0].new_zeros(values[0].shape[0])
        slots = self._start(schedule, values, conditions)
        layers = tuple(self.layers.values())
        for step in schedule.steps:
            log_det = self._advance(step, layers[step.layer], slots, log_det, inverse)
        return held(slots, schedule.ends), log_det

    def _start(self, schedule: Schedule, values: Tensors, conditions: Tensors) -> list[Tensor | None]:
        """Slots with what a call brings: conditions in the first ones, values where the schedule starts."""
        self._require_finite_given(schedule, schedule.starts, values)
        self._require_finite_given(schedule, range(len(conditions)), conditions)
        slots: list[Tensor | None] = [None] * self.slots
        slots[: len(conditions)] = conditions
        for slot, value in zip(schedule.starts, values, strict=True):
            slots[slot] = value
        return slots

    def _advance(
        self, step: Step, layer: nn.Module, slots: list[Tensor | None], log_det: Tensor, inverse: bool
    ) -> Tensor:
        """Run one node; the log-determinant so far, with the node's share."""
        cs = held(slots, step.conditions)
        if step.feature:
            outputs = features(layer(*cs), log_det.dtype)
        else:
            outputs, share = run_layer(layer, held(slots, step.inputs), cs, inverse)
            log_det = log_det + share
        return self._settle(step, slots, outputs, log_det)

    def _settle(self, step: Step, slots: list[Tensor | None], outputs: Tensors, log_det: Tensor) -> Tensor:
        """Put what a node made into its slots, and free those that nothing reads any more."""
        for slot, output in zip(step.outputs, outputs, strict=True):
            slots[slot] = output
        for slot in step.idle:
            slots[slot] = None
        if self.check_finite:
            self._require_finite(step, (*outputs, log_det))
        return log_det

    def _require_finite_given(self, schedule: Schedule, slots: Sequence[int], values: Tensors) -> None:
        """With ``check_finite``, refuse what is not finite when it comes in, so that no node is blamed for it."""
        if not self.check_finite:
            return
        told = dict(enumerate(map(self._conditions().label, range(len(self.cond_shapes)))))
        source = self._outputs() if schedule is self.inverse_schedule else self._inputs()
        told.update((slot, source.label(index)) for index, slot in enumerate(schedule.starts))
        for slot, value in zip(slots, values, strict=True):
            if not value.isfinite().all():
                readers = (step.layer for step in schedule.steps if slot in (*step.inputs, *step.conditions))
                first = next((f": node {list(self.layers)[layer]!r} reads it first" for layer in readers), "")
                advice = f"it came in like that, no node made it{first}"
                raise NumericsError(self.label, f"{told[slot]}: NaN or infinite", advice)

    def _require_finite(self, step: Step, values: Tensors) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in values):
            name, layer = list(self.layers.items())[step.layer]
            where = f"node {name!r} ({type(layer).__name__})"
            raise NumericsError(where, "finite numbers, made NaN or infinite", "the first node where they appear")

    def bind(self, conditions: Structured, *, gradients: bool = False) -> Bound:
        """The graph under fixed conditions: what depends on them alone is computed now, once.

        Feature nodes of the conditions, and the conditions' share of every subnet's first layer, then serve any number
        of samples; they are broadcast over the samples, not repeated. Values get a leading axis of samples. Parameters
        that change later don't change what was computed. Forward hooks of layers are not called.

        Arguments:
            conditions: of B rows, as in a call.
            gradients: whether gradients flow back to what is computed here: conditions, conditioning networks and the
                subnets' weights for them.

        Raises:
            GraphError: the graph has no conditions.

        Example:
            >>> import torch, invgraph as ig
            >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
            >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
            >>> graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c)
            >>> bound = graph.bind(torch.zeros(5, 3))
            >>> samples, log_det = bound.inverse(torch.zeros(100, 5, 2))
            >>> samples.shape, log_det.shape
            (torch.Size([100, 5, 2]), torch.Size([100, 5]))
        """
        return Bound(self, conditions, gradients)

    def compile(self, *, fullgraph: bool = True, dynamic: bool | None = None, **options: Any) -> Self:  # type: ignore[override]
        """Compile both directions in place; the first call of each takes the time, repeated blocks are compiled once.

        The whole graph is compiled, or ``torch.compile`` says why it can't be. A second batch size compiles once more,
        for any batch; ``dynamic=True`` does so at the first call. Copies and pickles of the graph are not compiled. On
        a GPU, ``mode="reduce-overhead"`` replays CUDA graphs.

        Arguments:
            fullgraph: False lets layers that can't be compiled run as they are.
            dynamic: whether the batch is a variable from the first call on. None: from the second batch size on.
            options: others of ``torch.compile``: ``backend``, ``mode``, ...

        Returns:
            The graph itself.

        Example:
            >>> import torch, invgraph as ig
            >>> x = ig.InputNode(4, name="x")
            >>> graph = ig.Graph(x, ig.Node(x, ig.Permute, {"order": (3, 2, 1, 0)})).compile(backend="eager")
            >>> graph(torch.arange(4.0).view(1, 4))[0]
            tensor([[3., 2., 1., 0.]])
        """
        require_flag("Graph.compile", "fullgraph", fullgraph)
        if dynamic is not None:
            require_flag("Graph.compile", "dynamic", dynamic)
        settings: dict[str, Any] = {"fullgraph": fullgraph, "dynamic": dynamic, **options}
        self._compiled_call_impl = compiled(self._call_impl, settings)
        self._compiled_inverse_impl = compiled(self._inverse_impl, settings)
        return self

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        self._initialize_along(self.forward_schedule, xs, cs, inverse=False)

    @torch.no_grad()
    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self._initialize_along(self.inverse_schedule, ys, cs, inverse=True)

    def _initialize_along(self, schedule: Schedule, values: Tensors, cs: Tensors, *, inverse: bool) -> None:
        slots = self._start(schedule, values, cs)
        log_det = values[0].new_zeros(values[0].shape[0])
        layers = tuple(self.layers.values())
        for step in schedule.steps:
            layer = layers[step.layer]
            if isinstance(layer, Invertible):
                start = layer._initialize_inverse if inverse else layer._initialize
                start(held(slots, step.inputs), held(slots, step.conditions))
            log_det = self._advance(step, layer, slots, log_det, inverse=inverse)

    def __repr__(self) -> str:
        return summarize(self.layers, self._sides, self.forward_schedule.steps)


def require_graph(graph: object, where: str) -> Graph:
    """Refuse what is not a graph, such as a node."""
    if not isinstance(graph, Graph):
        raise ArgumentError(where, type(graph).__name__, "expected a Graph: build one with Graph(inputs, outputs)")
    return graph


def held(slots: list[Tensor | None], places: tuple[int, ...]) -> Tensors:
    """What these slots hold."""
    return tuple([slots[place] for place in places])  # type: ignore[misc]  # a schedule fills a slot before it is read


def _schedules(wiring: Wiring) -> tuple[int, Schedule, Schedule]:
    """How many slots the graph has, and the order of its steps in both directions."""
    sides = (*wiring.conditions, *wiring.inputs)
    slots = {value: index for index, value in enumerate(sides)}
    for node in wiring.nodes:
        for value in node.outputs:
            slots.setdefault(value, len(slots))
    starts, ends = (tuple(slots[value] for value in side) for side in (wiring.inputs, wiring.outputs))
    forward = _ordered(wiring, inverse=False)
    inverse = _ordered(wiring, inverse=True)
    return (
        len(slots),
        Schedule(_steps(forward, wiring, slots, ends, inverse=False), starts, ends),
        Schedule(_steps(inverse, wiring, slots, starts, inverse=True), ends, starts),
    )


def _ordered(wiring: Wiring, inverse: bool) -> list[Node | FeatureNode]:
    """The nodes that compute, in an order that depends on the wiring and the order of declaration alone."""
    import networkx as nx  # here, because it would cost a tenth of `import torch` at every import

    def maker(value: Value) -> Node | FeatureNode | None:
        """The node after which a value is known; None if the call brings it."""
        if inverse and not isinstance(value.node, FeatureNode):
            return wiring.consumer.get(value)
        return value.node if isinstance(value.node, (Node, FeatureNode)) else None

    graph = nx.DiGraph()
    for node in wiring.nodes:
        if not isinstance(node, (Node, FeatureNode)):
            continue
        graph.add_node(node)
        taken = node.outputs if inverse and isinstance(node, Node) else node.sources
        for value in (*taken, *node.conditions):
            before = maker(value)
            if before is not None:
                graph.add_edge(before, node)
    try:
        sign = -1 if inverse else 1
        return list(nx.lexicographical_topological_sort(graph, key=lambda node: sign * node.order))
    except nx.NetworkXUnfeasible:
        circle = [edge[0] for edge in nx.find_cycle(graph)]
        told = " -> ".join(wiring.names[node] for node in (*circle, circle[0]))
        advice = (
            f"cannot be inverted: {told}: each needs what the next makes; condition on what the inverse knows earlier"
        )
        raise GraphError("Graph", "conditions that close a circle", advice) from None


def _steps(
    order: list[Node | FeatureNode], wiring: Wiring, slots: dict[Value, int], ends: tuple[int, ...], inverse: bool
) -> tuple[Step, ...]:
    """The steps, each with the slots that fall idle after it."""
    places = [node for node in wiring.nodes if isinstance(node, (Node, FeatureNode))]
    index = {node: place for place, node in enumerate(places)}
    kept = set(ends)
    steps: list[Step] = []
    for node in reversed(order):
        sources, outputs, conditions = (
            tuple(slots[value] for value in values) for values in (node.sources, node.outputs, node.conditions)
        )
        if inverse and isinstance(node, Node):
            sources, outputs = outputs, sources
        idle = tuple(dict.fromkeys(slot for slot in (*sources, *conditions) if slot not in kept))
        kept.update(idle)
        steps.append(Step(index[node], isinstance(node, FeatureNode), sources, conditions, outputs, idle))
    return tuple(reversed(steps))
