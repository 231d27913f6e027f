"""A loop that passes no seeds, and the permutations that it gets."""

from __future__ import annotations

from pathlib import Path

import invgraph as ig

SUBNET = ig.nets.MLP(hidden=4)


def blocks(count: int = 24) -> list[list[int]]:
    """The orders of the permutations in a loop that passes no seed."""
    x = h = ig.InputNode(30, name="x")
    label = ig.ConditionNode(3, name="label")
    for _ in range(count):
        h = ig.Node(h, ig.Permute)
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(), "subnet": SUBNET}, conditions=label)
    return orders(ig.Graph(x, h, label))


def orders(graph: ig.Graph) -> list[list[int]]:
    return [layer.order.tolist() for layer in graph.layers.values() if isinstance(layer, ig.Permute)]


def write(path: Path, count: int) -> None:
    """Write the orders of so many blocks."""
    path.write_text(str(blocks(count)))
