"""Diagnosis of precision: round trip, log-det, amplification and saturation of every node, as a table."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_seed
from invgraph.core.call import call_checked
from invgraph.core.invertible import Invertible, Result
from invgraph.draw.table import lines_of
from invgraph.errors import GraphError
from invgraph.graph.graph import Graph, require_graph
from invgraph.graph.measured import measurable, measuring
from invgraph.graph.run import Slots, fill, gather, run
from invgraph.graph.schedule import Step
from invgraph.graph.summary import fraction
from invgraph.numerics.singular_value import largest_singular_value
from invgraph.numerics.soft_clamp import watch_clamps
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Structured, Tensors
from invgraph.torch_internals import child_store, replace_children

M = TypeVar("M", bound=nn.Module)
Visit = Callable[[str, Invertible, Tensors, Tensors], None]
_SATURATED = 0.9


class NodeDiagnosis(NamedTuple):
    """Measurements of one node on a batch.

    Attributes:
        name: Name of the node, ``outer.inner`` in nested graphs.
        layer: Class of its layer.
        round_trip: Largest absolute error of the inverse applied after the forward.
        log_det: Mean log-determinant over the batch, in nats per sample.
        share: Log-determinant relative to the sum of the absolute log-determinants of all nodes.
        gain: Largest singular value of the Jacobian over the batch: the factor by which forward amplifies an error.
            Where forward is constant, or autograd can't differentiate it, it is 0.
        inverse_gain: Largest singular value of the Jacobian of the inverse, 1 / the smallest one of forward. It is
            0 for an inverse that rounds, such as that of :class:`~invgraph.Dequantize`.
        saturated: Fraction of softly clamped elements beyond 90 % of their bound; None if the node has no clamp.
    """

    name: str
    layer: str
    round_trip: float
    log_det: float
    share: float
    gain: float
    inverse_gain: float
    saturated: float | None


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`diagnose`, which prints as a table.

    Attributes:
        nodes: Row for each invertible node, in forward order; a nested graph is followed by its nodes.
        whole: Row of the graph itself.
    """

    nodes: tuple[NodeDiagnosis, ...]
    whole: NodeDiagnosis

    def __getitem__(self, name: str) -> NodeDiagnosis:
        """Return the row of a node, by its name."""
        found = {node.name: node for node in self.nodes}
        if not isinstance(name, str) or name not in found:
            raise GraphError("Diagnosis", f"name {name!r}", f"no such node; there are {', '.join(found) or 'none'}")
        return found[name]

    @property
    def worst(self) -> NodeDiagnosis:
        """Node with the largest round trip error; NaN counts as the largest.

        Raises:
            GraphError: If the graph has no invertible node.
        """
        if not self.nodes:
            raise GraphError("Diagnosis.worst", "a graph without invertible nodes", "there is none: see .whole")
        return max(self.nodes, key=lambda node: (node.round_trip != node.round_trip, node.round_trip))

    def __str__(self) -> str:
        head = ("node", "layer", "round trip", "log-det", "share", "gain", "inverse gain", "saturated")
        rows: list[tuple[str, ...]] = [head, *map(_cells, (*self.nodes, self.whole))]
        return "\n".join(lines_of(rows, numbers=range(2, len(head))))


def diagnose(graph: Graph, x: Structured, c: Structured = (), *, iterations: int = 50, seed: int = 0) -> Diagnosis:
    """Run a graph forward once in evaluation mode, and measure each node on the values it receives.

    The rounding error of one node is amplified by the gains of the nodes that follow. If round trips are inexact, look
    for large gains, and for clamps at their bounds. Gains are estimated by power iteration, which approaches them from
    below; the gain of a direction that rounds is 0. The graph does not change; if it is compiled, its plain code is
    measured, and instead of a reversible runner inside it the graph that it runs.

    Arguments:
        graph: Graph; for a flow, ``flow.graph``.
        x: Data, as in a call of the graph.
        c: Conditions, as in a call of the graph. Default: none.
        iterations: Maximum number of steps of the power iteration, which ends early once it has converged. Default: 50.
        seed: Seed of the private generator that draws the initial vectors. Default: 0.

    Raises:
        ArgumentError: If ``graph`` is not a graph, or an argument has the wrong type.
        GraphError: If ``iterations`` is not positive, or the seed does not fit into 64 bits; if the tensors are on the
            meta device, or gradients are unavailable because of ``torch.inference_mode``.
        ShapeError: If the batch is empty, or a tensor does not fit.

    Example:
        >>> import torch, invgraph as ig
        >>> x = ig.InputNode(1, 4, 4, name="x")
        >>> graph = ig.Graph(x, ig.Node(x, ig.Haar, {"rebalance": 0.5}, name="haar"))
        >>> print(ig.diagnose(graph, torch.ones(1, 1, 4, 4)))
        node   layer  round trip  log-det   share  gain  inverse gain  saturated
        -----  -----  ----------  -------  ------  ----  ------------  ---------
        haar   Haar      0.0e+00   -8.318  -100 %     1             2          -
        (all)  Graph     0.0e+00   -8.318   100 %     1             2          -
    """
    graph = _without_runners(require_graph(graph, "diagnose"), {})
    iterations = require_count("diagnose", "iterations", iterations)
    seed = require_seed("diagnose", seed)
    xs, cs = measurable("diagnose", "diagnose(graph, {x}, {c})", graph, x, c)
    rows: list[NodeDiagnosis] = []

    def visit(name: str, layer: Invertible, values: Tensors, conditions: Tensors) -> None:
        rows.append(_measure(name, layer, values, conditions, iterations, seed))

    with torch.no_grad(), measuring(graph):
        _visit_nodes(graph, xs, cs, "", visit)
        whole = _measure("(all)", graph, xs, cs, iterations, seed)
    # The nodes of a nested graph already count in the row of the nested graph.
    total = sum((abs(row.log_det) for row in rows if "." not in row.name), 0.0)
    nodes = tuple(row._replace(share=fraction(row.log_det, total)) for row in rows)
    return Diagnosis(nodes, whole._replace(share=fraction(total, total)))


def _without_runners(module: M, known: dict[nn.Module, nn.Module]) -> M:
    """Return a module, copied as far as it has to be, that runs graphs as they are: runners can't derive gains."""
    if module not in known:
        children = {name: child for name, child in child_store(module).items() if child is not None}
        held = {name: _without_runners(child, known) for name, child in children.items()}
        held = {name: child.graph if isinstance(child, Reversible) else child for name, child in held.items()}
        known[module] = module if held == children else copy.copy(module)
        if held != children:
            replace_children(known[module], held)
    return known[module]  # type: ignore[return-value]


def _visit_nodes(graph: Graph, xs: Tensors, cs: Tensors, prefix: str, visit: Visit) -> None:
    """Call ``visit`` with every invertible node and the values it receives; a nested graph comes before its nodes."""
    schedule = graph.forward_schedule

    def before(step: Step, layer: nn.Module, slots: Slots, log_det: Tensor | None) -> None:
        if isinstance(layer, Invertible):
            name = f"{prefix}{schedule.names[step.layer]}"
            values, conditions = gather(slots, step.inputs), gather(slots, step.conditions)
            visit(name, layer, values, conditions)
            if isinstance(layer, Graph):
                _visit_nodes(layer, values, conditions, f"{name}.", visit)

    run(schedule, tuple(graph.layers.values()), fill(schedule, xs, cs), before=before)


def _measure(name: str, layer: Invertible, xs: Tensors, cs: Tensors, iterations: int, seed: int) -> NodeDiagnosis:
    """Return the row of a node; its share is filled in later."""

    def forward(values: Tensors) -> Result:
        return call_checked(layer, values, cs, inverse=False)

    def inverse(values: Tensors) -> Result:
        return call_checked(layer, values, cs, inverse=True)

    clamped: list[Tensor] = []
    with watch_clamps(lambda value, alpha: clamped.append(_beyond(value, alpha))):
        ys, log_det = forward(xs)
    back, _ = inverse(ys)
    errors = [(a - b).abs().max() for a, b in zip(back, xs, strict=True) if a.numel()]
    return NodeDiagnosis(
        name,
        type(layer).__name__,
        torch.stack(errors).max().item() if errors else 0.0,
        log_det.mean().item(),
        0.0,
        _largest_gain(forward, xs, iterations, seed),
        _largest_gain(inverse, ys, iterations, seed),
        torch.cat(clamped).mean().item() if clamped else None,
    )


def _beyond(clamped: Tensor, alpha: float) -> Tensor:
    """Return 1 for each element near its bound, else 0; NaN for those that are NaN."""
    beyond = (clamped.abs() > _SATURATED * alpha).double()
    return torch.where(clamped.isnan(), math.nan, beyond).flatten()


def _largest_gain(direction: Callable[[Tensors], Result], values: Tensors, iterations: int, seed: int) -> float:
    """Return the largest gain over the batch."""
    return largest_singular_value(lambda at: direction(at)[0], values, iterations, seed).max().item()


def _cells(node: NodeDiagnosis) -> tuple[str, ...]:
    return (
        node.name,
        node.layer,
        f"{node.round_trip:.1e}",
        f"{node.log_det:.3f}",
        f"{100 * node.share:.0f} %",
        f"{node.gain:.3g}",
        f"{node.inverse_gain:.3g}",
        "-" if node.saturated is None else f"{100 * node.saturated:.0f} %",
    )
