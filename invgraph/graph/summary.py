"""The table that ``print(graph)`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.shapes import Ports

if TYPE_CHECKING:
    from invgraph.graph.graph import Step


def summarize(layers: nn.ModuleDict, sides: tuple[Ports, Ports, Ports], steps: Sequence[Step]) -> str:
    """Inputs, conditions, a line for each node in the order of the forward direction, outputs, and totals."""
    rows: list[tuple[str, str, str, str]] = [("node", "layer", "shapes", "parameters")]
    for ports in (sides[0], sides[2]):
        rows += [(name, ports.kind, str(shape), "") for name, shape in zip(ports.names, ports.shapes, strict=True)]
    named = list(layers.items())
    for step in steps:
        name, layer = named[step.layer]
        shapes = "feature"
        if isinstance(layer, Invertible):
            shapes = " -> ".join(", ".join(map(str, side)) for side in (layer.in_shapes, layer.out_shapes))
        rows.append((name, type(layer).__name__, shapes, f"{_count(layer):,}" if _count(layer) else ""))
    rows += [(name, "output", str(shape), "") for name, shape in zip(sides[1].names, sides[1].shapes, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.rjust(width) if column == 3 else cell.ljust(width) for column, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([f"Graph of {len(steps)} nodes, {_count(layers):,} parameters", *lines])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
