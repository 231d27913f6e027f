"""Table of a graph's nodes, shown by ``print(graph)``."""

from __future__ import annotations

from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.graph.schedule import Schedule


def summarize(layers: nn.ModuleDict, schedule: Schedule) -> str:
    """Return the table: totals, inputs, conditions, nodes in forward order, and outputs, one per line."""
    rows: list[tuple[str, str, str, str]] = [("node", "layer", "shapes", "parameters")]
    for ports in (schedule.source, schedule.conditions):
        rows += [(name, ports.kind, str(shape), "") for name, shape in zip(ports.names, ports.shapes, strict=True)]
    named = list(layers.items())
    for step in schedule.steps:
        name, layer = named[step.layer]
        shapes = "feature"
        if isinstance(layer, Invertible):
            shapes = " -> ".join(", ".join(map(str, side)) for side in (layer.in_shapes, layer.out_shapes))
        rows.append((name, type(layer).__name__, shapes, f"{_count(layer):,}" if _count(layer) else ""))
    ends = zip(schedule.target.names, schedule.target.shapes, strict=True)
    rows += [(name, "output", str(shape), "") for name, shape in ends]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.rjust(width) if column == 3 else cell.ljust(width) for column, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([f"Graph of {len(schedule.steps)} nodes, {_count(layers):,} parameters", *lines])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
