"""Where a graph loses precision: round trip, log-det, amplification and saturation of every node, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_seed
from invgraph.core.invertible import Invertible, Result, call_checked
from invgraph.core.modes import evaluating
from invgraph.errors import GraphError
from invgraph.graph.graph import Graph, require_graph
from invgraph.graph.run import Slots, fill, gather, run
from invgraph.graph.schedule import Step
from invgraph.numerics.singular_value import largest_singular_value
from invgraph.numerics.soft_clamp import watch_clamps
from invgraph.shapes import Structured, Tensors

Look = Callable[[str, Invertible, Tensors, Tensors], None]
_SATURATED = 0.9


class NodeDiagnosis(NamedTuple):
    """One node, as the given batch finds it.

    Attributes:
        name: of the node, ``outer.inner`` in nested graphs.
        layer: its class.
        round_trip: largest absolute error of its inverse after its forward.
        log_det: mean over the batch, nats per sample.
        share: of the sum of all nodes' absolute log-dets, with the sign of its own.
        gain: largest singular value of its Jacobian over the batch: how much the forward stretches an error.
        inverse_gain: the same of the inverse, 1 / the smallest singular value.
        saturated: share of the softly clamped numbers beyond 90 % of their bound; None where nothing is clamped.
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
    """What :func:`diagnose` found: print it for a table.

    Attributes:
        nodes: a row for each invertible node, in forward order; of a nested graph, itself and then its nodes.
        whole: the row of the graph itself.
    """

    nodes: tuple[NodeDiagnosis, ...]
    whole: NodeDiagnosis

    def __getitem__(self, name: str) -> NodeDiagnosis:
        """The row of a node, by its name."""
        found = {node.name: node for node in self.nodes}
        if not isinstance(name, str) or name not in found:
            raise GraphError("Diagnosis", f"name {name!r}", f"no such node; there are {', '.join(found) or 'none'}")
        return found[name]

    @property
    def worst(self) -> NodeDiagnosis:
        """The node with the largest error of its round trip; NaN is larger than any."""
        return max(self.nodes, key=lambda node: (node.round_trip != node.round_trip, node.round_trip))

    def __str__(self) -> str:
        head = ("node", "layer", "round trip", "log-det", "share", "gain", "inverse gain", "saturated")
        rows: list[tuple[str, ...]] = [head, *map(_cells, (*self.nodes, self.whole))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = zip(row, widths, strict=True)
            aligned = [cell.ljust(w) if place < 2 else cell.rjust(w) for place, (cell, w) in enumerate(cells)]
            lines.append("  ".join(aligned))
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


def diagnose(graph: Graph, x: Structured, c: Structured = (), *, iterations: int = 50, seed: int = 0) -> Diagnosis:
    """Run a graph forward once in evaluation mode, and measure each node on the values that reach it.

    An error that rounding makes in one node is stretched by the gains of the nodes that follow: where round trips are
    worse than they should be, look for large gains, and for clamps at their bounds. Gains are found by power iteration,
    from below. Nothing of the graph changes.

    Arguments:
        graph: the graph; of a flow, ``flow.graph``.
        x: data, as the graph's forward takes them.
        c: conditions, as the graph takes them.
        iterations: at most so many steps of the power iteration; it ends earlier where the value stands still.
        seed: of the vectors that it starts from; a generator of its own draws them.

    Raises:
        ArgumentError: something other than a graph was given, or an argument has the wrong type.
        GraphError: fewer than one iteration, or a seed that does not fit.

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
    graph = require_graph(graph, "diagnose")
    iterations = require_count("diagnose", "iterations", iterations)
    seed = require_seed("diagnose", seed)
    graph._conditions().require_given("diagnose", c, "diagnose(graph, {x}, {c})", graph._inputs())
    xs, cs = graph._inputs().unpack("diagnose", x), graph._conditions().unpack("diagnose", c)
    rows: list[NodeDiagnosis] = []

    def look(name: str, layer: Invertible, values: Tensors, conditions: Tensors) -> None:
        rows.append(_measure(name, layer, values, conditions, iterations, seed))

    with torch.no_grad(), evaluating(graph):
        graph(x, c)  # checks the arguments
        _walk(graph, xs, cs, "", look)
        whole = _measure("(all)", graph, xs, cs, iterations, seed)
    # What happens inside a nested graph counts once: in the row of the node that holds it.
    total = sum(abs(row.log_det) for row in rows if "." not in row.name)
    return Diagnosis(tuple(row._replace(share=row.log_det / total if total else 0.0) for row in rows), whole)


def _walk(graph: Graph, xs: Tensors, cs: Tensors, prefix: str, look: Look) -> None:
    """Show every invertible node with the values that reach it, and those of nested graphs after their own node."""
    schedule = graph.forward_schedule

    def before(step: Step, layer: nn.Module, slots: Slots, log_det: Tensor) -> None:
        if isinstance(layer, Invertible):
            name = f"{prefix}{schedule.names[step.layer]}"
            values, conditions = gather(slots, step.inputs), gather(slots, step.conditions)
            look(name, layer, values, conditions)
            if isinstance(layer, Graph):
                _walk(layer, values, conditions, f"{name}.", look)

    run(schedule, tuple(graph.layers.values()), fill(schedule, xs, cs), before=before)


def _measure(name: str, layer: Invertible, xs: Tensors, cs: Tensors, iterations: int, seed: int) -> NodeDiagnosis:
    """Return the row of a node; its share is filled in later."""

    def forward(values: Tensors) -> Result:
        return call_checked(layer, values, cs, inverse=False)

    def inverse(values: Tensors) -> Result:
        return call_checked(layer, values, cs, inverse=True)

    clamped: list[Tensor] = []
    with watch_clamps(lambda bent, alpha: clamped.append((bent.abs() > _SATURATED * alpha).flatten())):
        ys, log_det = forward(xs)
    back, _ = inverse(ys)
    errors = [(a - b).abs().max() for a, b in zip(back, xs, strict=True) if a.numel()]
    return NodeDiagnosis(
        name,
        type(layer).__name__,
        torch.stack(errors).max().item() if errors else 0.0,
        log_det.mean().item(),
        1.0,
        _largest_gain(forward, xs, iterations, seed),
        _largest_gain(inverse, ys, iterations, seed),
        torch.cat(clamped).double().mean().item() if clamped else None,
    )


def _largest_gain(direction: Callable[[Tensors], Result], values: Tensors, iterations: int, seed: int) -> float:
    """Return the largest gain over the batch."""
    found = largest_singular_value(lambda at: direction(at)[0], values, iterations, seed)
    return found.max().item() if found.numel() else 0.0


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
