"""Where a graph loses precision: round trip, log-det, amplification and saturation of every node, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_seed
from invgraph.core.invertible import Invertible, Nested
from invgraph.core.modes import evaluating
from invgraph.errors import GraphError
from invgraph.graph.graph import Graph, require_graph
from invgraph.numerics.singular_value import largest_singular_value
from invgraph.numerics.soft_clamp import watch_clamps
from invgraph.shapes import Structured, Tensors

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
    xs, cs = graph._inputs().unpack("diagnose", x), graph._conditions().unpack("diagnose", c)
    names = {layer: name for name, layer in _layers(graph, "")}
    rows: list[NodeDiagnosis] = []
    busy = False

    def look(layer: nn.Module, arguments: tuple[Tensors, Tensors]) -> None:
        nonlocal busy
        if not busy:  # a measurement calls the layer again, and the nodes inside a nested graph
            busy = True
            assert isinstance(layer, Invertible)
            rows.append(_measure(names[layer], layer, arguments, (iterations, seed)))
            busy = False

    hooks = [layer.register_forward_pre_hook(look) for layer in names]
    try:
        with torch.no_grad(), evaluating(graph):
            graph(x, c)
            busy = True
            whole = _measure("(all)", Nested(graph), (xs, cs), (iterations, seed))
    finally:
        for hook in hooks:
            hook.remove()
    # What happens inside a nested graph counts once: in the row of the node that holds it.
    total = sum(abs(row.log_det) for row in rows if "." not in row.name)
    return Diagnosis(tuple(row._replace(share=row.log_det / total if total else 0.0) for row in rows), whole)


def _layers(graph: Graph, prefix: str) -> Iterator[tuple[str, Invertible]]:
    """The invertible nodes with their names."""
    for name, layer in graph.layers.items():
        if isinstance(layer, Invertible):
            yield f"{prefix}{name}", layer
        inner = layer.module if isinstance(layer, Nested) else layer
        if isinstance(inner, Graph):
            yield from _layers(inner, f"{prefix}{name}.")


def _measure(name: str, layer: Invertible, arguments: tuple[Tensors, Tensors], power: tuple[int, int]) -> NodeDiagnosis:
    """The row of a node, but for its share."""
    xs, cs = (tuple(value.detach() for value in side) for side in arguments)
    clamped: list[Tensor] = []
    with watch_clamps(lambda bent, alpha: clamped.append((bent.abs() > _SATURATED * alpha).flatten())):
        ys, log_det = layer(xs, cs)
    back, _ = layer.inverse(ys, cs)
    errors = [(a - b).abs().max() for a, b in zip(back, xs, strict=True) if a.numel()]
    kind = type(layer.module if isinstance(layer, Nested) else layer).__name__
    return NodeDiagnosis(
        name,
        kind,
        torch.stack(errors).max().item() if errors else 0.0,
        log_det.mean().item(),
        1.0,
        _largest(layer, xs, cs, power),
        _largest(layer.inverse, ys, cs, power),
        torch.cat(clamped).double().mean().item() if clamped else None,
    )


def _largest(direction: Callable[..., Any], values: Tensors, cs: Tensors, power: tuple[int, int]) -> float:
    """The largest gain over the batch."""
    found = largest_singular_value(lambda at: direction(at, cs)[0], values, *power)
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
