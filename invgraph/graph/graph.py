"""The graph as one module: it is declared once, and run in several ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, final

from torch import nn

from invgraph.arguments import require_flag
from invgraph.core.call import Ports
from invgraph.core.constants import materialize_constants
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Result
from invgraph.distributions.graph_transform import GraphTransform
from invgraph.errors import ArgumentError, GraphError
from invgraph.graph.bound import Binding, BoundGraph, bind
from invgraph.graph.check_finite import run_checked
from invgraph.graph.compiled import compiled
from invgraph.graph.initialize import start_layer, starting
from invgraph.graph.layer_dict import ModuleDict
from invgraph.graph.node import FeatureNode, Node, Sources
from invgraph.graph.resize import Resizable
from invgraph.graph.run import Observer, fill, run
from invgraph.graph.schedule import Schedule, schedules
from invgraph.graph.tied import label_layers, require_tied_state
from invgraph.graph.wiring import wire
from invgraph.shapes import Shape, Structured, Tensors
from invgraph.torch_internals import compile_calls


@final
class Graph(Resizable):
    """A declared graph of nodes as one invertible module.

    ``outputs, log_det = graph(inputs, conditions)`` and ``inputs, log_det = graph.inverse(outputs, conditions)``. Each
    of inputs, outputs and conditions has the structure it was declared with: one node alone is a tensor, a list or
    tuple of nodes is a tuple of tensors.

    Graphs declared over the same nodes share their layers, and a layer that is built already may stand in several
    nodes, which then have tied weights. A graph is a layer too: ``Node(x, graph)``. Default seeds inside it follow from
    the places in it: give seeds to the layers of equal graphs that are nested in a loop.

    Arguments:
        inputs: The :class:`InputNode`, or a list of them.
        outputs: The node or value that the network returns, or a list of them.
        conditions: The :class:`ConditionNode`, or a list of them.
        check_finite: True to raise :class:`~invgraph.errors.NumericsError` at the first node that makes a NaN or an
            infinity, or at the input or condition that brings one (for debugging: it reads the data after every node).
            Such a graph runs as plain code, and is refused with ``fullgraph=True``. Default: False.
        name: Name of the graph in the errors of a call; within another graph it is named by its node.

    Log-det:
        The sum over the nodes, nats per sample, of the direction taken.

    Raises:
        GraphError: If the nodes do not make an invertible graph; the message says where and why.

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
    call_name = "graph"
    _compiled_bound_impl: Callable[[bool, Binding, Tensors], Result] | None = None

    def __init__(
        self,
        inputs: Sources,
        outputs: Sources,
        conditions: Sources = (),
        *,
        check_finite: bool = False,
        name: str | None = None,
    ) -> None:
        wiring = wire(inputs, outputs, conditions)
        check_finite = require_flag("Graph", "check_finite", check_finite)
        super().__init__(
            tuple(value.shape for value in wiring.inputs), tuple(value.shape for value in wiring.conditions)
        )
        self.label = _label(name)
        self.check_finite = check_finite
        computing = [node for node in wiring.nodes if isinstance(node, (Node, FeatureNode))]
        self.layers = ModuleDict({wiring.names[node]: node.module for node in computing})
        label_layers(self.layers)
        self.forward_schedule, self.inverse_schedule = schedules(wiring)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.forward_schedule.target.shapes

    def __getitem__(self, name: str) -> nn.Module:
        """Return the layer of a node, by the node's name."""
        if not isinstance(name, str) or name not in self.layers:
            names = ", ".join(self.layers)
            raise GraphError(self.label, f"name {name!r}", f"no such node; the graph has {names}")
        return self.layers[name]

    def _inputs(self) -> Ports:
        return self.forward_schedule.source

    def _outputs(self) -> Ports:
        return self.forward_schedule.target

    def _conditions(self) -> Ports:
        return self.forward_schedule.conditions

    def precompute(self, cs: Tensors) -> Any:
        if not cs:
            return cs
        return Precomputed((bind(self.forward_schedule, tuple(self.layers.values()), cs, self.check_finite),))

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return self._run(self.forward_schedule, xs, given)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return self._run(self.inverse_schedule, ys, given)

    def _run(self, schedule: Schedule, values: Tensors, given: Any, before: Observer | None = None) -> Result:
        layers = tuple(self.layers.values())
        if isinstance(given, Precomputed):
            return given[0].run(schedule, layers, values, self.check_finite)  # type: ignore[no-any-return]
        slots = fill(schedule, values, given)
        if self.check_finite:
            return run_checked(self.label, schedule, layers, slots, before=before)
        return run(schedule, layers, slots, before=before)

    def bind(self, conditions: Structured, *, gradients: bool = False) -> BoundGraph:
        """Return the graph under fixed conditions; everything that depends on these alone is computed once, now.

        Features of the conditions, and their contribution to the first layer of every subnet, are then used for any
        number of samples; they are broadcast over the samples, not repeated. Values get a leading axis of samples.
        Later changes of the parameters have no effect on the values computed here.

        Arguments:
            conditions: Conditions, of B rows, as in a call.
            gradients: True to record gradients of what is computed here: of the conditions, the conditioning networks
                and the weights of subnets that read the conditions. Default: False.

        Raises:
            GraphError: If the graph has no conditions.

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
        return BoundGraph(
            self._compiled_bound_impl or self._run_bound,
            self.layers,
            (self.forward_schedule, self.inverse_schedule),
            conditions,
            gradients=gradients,
            check_finite=self.check_finite,
            label=self.label,
        )

    def transform(self, c: Structured = (), cache_size: int = 0) -> GraphTransform:
        """Return the graph under conditions as a transform of ``torch.distributions``: see :class:`GraphTransform`."""
        return GraphTransform(self, c, cache_size)

    def _run_bound(self, inverse: bool, binding: Binding, values: Tensors) -> Result:
        """Run a direction on several samples for each row of the conditions, sample by sample."""
        schedule = self.inverse_schedule if inverse else self.forward_schedule
        return binding.run(schedule, tuple(self.layers.values()), values, self.check_finite)

    def compile(self, *, fullgraph: bool = True, dynamic: bool | None = None, **options: Any) -> Self:  # type: ignore[override]
        """Compile both directions in place, in the first call of each; repeated blocks are compiled once.

        The whole graph is compiled, or ``torch.compile`` says why it can't be. A second batch size compiles once more,
        for any batch; ``dynamic=True`` does so at the first call. What :meth:`bind` returns is compiled too, and
        samples of a flow with it; copies and pickles are not. On a GPU, ``mode="reduce-overhead"`` replays CUDA graphs.

        Arguments:
            fullgraph: False to run layers that can't be compiled in eager mode. Default: True.
            dynamic: True to compile for any batch size at the first call. None (default): at the second batch size.
            options: Other arguments of ``torch.compile``: ``backend``, ``mode``, ...

        Returns:
            The graph itself.

        Raises:
            GraphError: If a call found full backward hooks on modules, which ``fullgraph=True`` can't compile.

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
        compile_calls(self, partial(compiled, self, settings=settings))
        self._compiled_inverse_impl = compiled(self, self._inverse_impl, settings)
        self._compiled_bound_impl = compiled(self, self._run_bound, settings)
        return self

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        with starting():
            self._run(self.forward_schedule, xs, cs, before=partial(start_layer, inverse=False))

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        with starting():
            self._run(self.inverse_schedule, ys, cs, before=partial(start_layer, inverse=True))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Load the tensors; those of a nested graph had ``module.`` before their names in early checkpoints."""
        old = f"{prefix}module.layers."
        for name in [name for name in state_dict if name.startswith(old)]:
            state_dict[f"{prefix}layers.{name.removeprefix(old)}"] = state_dict.pop(name)
        materialize_constants(self, state_dict, args)
        require_tied_state(self.label, self.layers, state_dict, f"{prefix}layers.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _label(name: object) -> str:
    """Return what errors of a call name a graph by."""
    if name is None:
        return "Graph"
    if not isinstance(name, str) or not name:
        raise ArgumentError("Graph", f"name={name!r}", "the name of a graph must be a str, and not empty, or None")
    return f"Graph {name!r}"


def require_graph(graph: object, where: str) -> Graph:
    """Refuse anything but a graph, such as a node."""
    if not isinstance(graph, Graph):
        own = "pass its graph" if hasattr(graph, "graph") else "build one with Graph(inputs, outputs)"
        raise ArgumentError(where, type(graph).__name__, f"expected a Graph: {own}")
    return graph
