"""Reversible runner: training in constant memory, by rebuilding each node's inputs from its outputs."""

from __future__ import annotations

from typing import Any, final

from invgraph.arguments import as_number, require_count
from invgraph.core.call import Ports, call_checked
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Ends, Knowns
from invgraph.errors import GraphError
from invgraph.fused.autograd import needs_grad
from invgraph.graph.bound import BoundGraph
from invgraph.graph.graph import Graph, require_graph
from invgraph.graph.holder import GraphHolder
from invgraph.reversible.backward import Call, ReversibleFunction
from invgraph.reversible.call_state import require_repeatable, tensors_of
from invgraph.reversible.plan import Direction
from invgraph.shapes import Shape, Structured, Tensors
from invgraph.torch_internals import is_transformed

_WHERE = "reversible"


@final
class Reversible(GraphHolder[Graph], Invertible):
    """Graph that trains with the activations of one node at a time, whatever its depth: see :func:`reversible`."""

    conditional = True
    arity = None
    call_name = "graph"
    fixed_size_reason = "it keeps the steps of its graph: make another one of that size, reversible(graph.at(...))"

    def __init__(self, graph: Graph, anchors: int | None = None, tolerance: float | None = 1e-2) -> None:
        require_graph(graph, _WHERE)
        super().__init__(graph.in_shapes, graph.cond_shapes)
        self.label = graph.label.replace("Graph", "Reversible", 1) if graph.label.startswith("Graph") else "Reversible"
        anchors = None if anchors is None else require_count(_WHERE, "anchors", anchors)
        tolerance = None if tolerance is None else as_number(_WHERE, "tolerance", tolerance)
        if tolerance is not None and not tolerance > 0:
            raise GraphError(_WHERE, f"tolerance={tolerance}", "tolerance must be a positive number or None")
        self.model = graph
        self.tolerance = tolerance
        self.directions = (
            Direction(graph.forward_schedule, graph.inverse_schedule, anchors),
            Direction(graph.inverse_schedule, graph.forward_schedule, anchors),
        )

    def _hold(self, graph: Any) -> None:
        if "directions" in vars(self):
            raise GraphError(_WHERE, "its graph was replaced", "make another runner: reversible(graph)")

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
        parts = tuple(self.graph.modules())
        parameters, frozen = tensors_of(parts)
        if isinstance(given, Precomputed) or is_transformed() or not needs_grad(*values, *given, *parameters):
            return call_checked(self.graph, values, given, inverse=direction.schedule.inverse)
        require_repeatable(self.graph.layers, direction.schedule.steps, parts[1:], parameters)
        call = Call(self.graph, parts, frozen, direction, self.tolerance, len(values), len(given))
        *outputs, log_det = ReversibleFunction.apply(call, *values, *given, *parameters)  # type: ignore[no-untyped-call]
        return tuple(outputs), log_det

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return self.graph._follow(intervals, inverse=inverse)

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        return self.graph._follow_ends(ends, inverse=inverse)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        self.graph._initialize(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.graph._initialize_inverse(ys, cs)


def reversible(graph: Graph, anchors: int | None = None, tolerance: float | None = 1e-2) -> Reversible:
    """Return a module that is called like the graph and has the same parameters, but trains in constant memory.

    The forward pass stores only outputs, conditions and inputs. The backward pass visits the nodes in reverse order: it
    rebuilds the inputs of a node from its outputs, runs the node again with gradients, and frees its activations before
    it continues. The subnets of a coupling are evaluated once for both. The inverse direction trains in the same way.

    ``torch.func`` transforms (``vmap``, ``grad``) can't map a backward pass of this kind; inside them, the plain graph
    is run, which stores its activations.

    A nested graph counts as one node, and a :class:`~invgraph.FeatureNode` is run once more in the backward pass. The
    backward pass uses the autocast settings of the forward pass, and does not update the statistics of batch norms.

    Arguments:
        graph: Graph to train; it can still be called directly.
        anchors: Interval k at which the inputs of nodes are stored as well, so that rounding errors accumulate over at
            most k nodes. Default: None, to store no such inputs.
        tolerance: Maximum reconstruction error before NumericsError is raised: the error of rebuilt values, divided by
            the largest element of the stored ones, or by 1 if that is smaller. It is checked at every anchor and at
            the inputs. None disables the check, which reads the data. Default: 1e-2.

    Raises:
        ArgumentError: If an argument has the wrong type.
        GraphError: If ``anchors`` or ``tolerance`` is out of range; in a call, if random values were drawn (dropout
            in training mode), or a module other than a batch norm changed its buffers (spectral_norm in training mode);
            in the backward pass, if second derivatives were requested.
        NumericsError: If an output or condition was modified in place before the backward pass, or the tolerance is
            exceeded; the message names the node that loses most precision.

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
