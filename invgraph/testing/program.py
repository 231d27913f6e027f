"""Random graphs as lists of operations, which can be declared in more than one way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.graph.graph import Graph
from invgraph.graph.node import ConditionNode, FeatureNode, InputNode, Node, Value
from invgraph.shapes import Shape

INPUT, CONDITION = -1, -2
"""Markers in place of an operation, for values that are inputs or conditions."""


class Ref(NamedTuple):
    """Reference to a value: index of its operation (or INPUT, CONDITION), and of the output of that operation."""

    maker: int
    output: int


@dataclass(frozen=True)
class Op:
    """Node: its layer, feature network or nested program, and the values it reads."""

    module: nn.Module | None
    sources: tuple[Ref, ...]
    conditions: tuple[Ref, ...] = ()
    inner: Program | None = None

    @property
    def is_feature(self) -> bool:
        """True if the node computes a feature of conditions."""
        return not self.sources


@dataclass(frozen=True)
class Program:
    """Graph: shapes of its inputs and conditions, operations, and outputs.

    ``single`` has a flag each for inputs, outputs and conditions: if True, a side with one value is declared as that
    value instead of a tuple, as in ``Graph(x, y, c)``.
    """

    inputs: tuple[Shape, ...]
    conditions: tuple[Shape, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Ref, ...]
    single: tuple[bool, bool, bool] = (False, False, False)

    def declare(
        self,
        *,
        order: Sequence[int] | None = None,
        name: Callable[[str], str | None] = str,
        inline: bool = False,
    ) -> Graph:
        """Build the graph, with copies of the layers.

        Arguments:
            order: Order in which the operations are declared. Default: that of ``ops``.
            name: Function that maps a node's position, such as ``op3``, or ``op3_op0`` in a nested graph, to its name.
            inline: If True, declare the nodes of nested graphs in the graph itself. Default: False.
        """
        kinds = (("x", self.inputs, InputNode), ("c", self.conditions, ConditionNode))
        ins, given = (
            [node(*shape, name=name(f"{letter}{index}")).outputs[0] for index, shape in enumerate(shapes)]
            for letter, shapes, node in kinds
        )
        outs = self._nodes(ins, given, "", order, name, inline)
        sides = zip((ins, outs, given), self.single, strict=True)
        x, y, c = (side[0] if single and len(side) == 1 else tuple(side) for side, single in sides)
        return Graph(x, y, c)

    def _nodes(
        self,
        ins: Sequence[Value],
        given: Sequence[Value],
        prefix: str,
        order: Sequence[int] | None,
        name: Callable[[str], str | None],
        inline: bool,
    ) -> list[Value]:
        """Declare the nodes and return the outputs."""
        values = {Ref(INPUT, index): value for index, value in enumerate(ins)}
        values |= {Ref(CONDITION, index): value for index, value in enumerate(given)}
        for number in order if order is not None else range(len(self.ops)):
            op, place = self.ops[number], f"{prefix}op{number}"
            sources, conditions = ([values[ref] for ref in refs] for refs in (op.sources, op.conditions))
            made: Sequence[Value]
            if op.is_feature:
                made = FeatureNode(conditions, copy.deepcopy(op.module), name=name(place)).outputs
            elif op.inner is not None and inline:
                made = op.inner._nodes(sources, conditions, f"{place}_", None, name, inline)
            else:
                layer = op.inner.declare(name=name) if op.inner is not None else copy.deepcopy(op.module)
                made = Node(sources, layer, conditions=conditions, name=name(place)).outputs
            values |= {Ref(number, index): value for index, value in enumerate(made)}
        return [values[ref] for ref in self.outputs]


def out_shapes(op: Op, shapes: dict[Ref, Shape]) -> tuple[Shape, ...]:
    """Return the shapes of the outputs of an operation."""
    if op.inner is not None:
        inner = op.inner.declare()
        return inner.out_shapes
    if isinstance(op.module, Invertible):
        return op.module.out_shapes
    assert op.module is not None
    node = FeatureNode([ConditionNode(*shapes[ref]) for ref in op.conditions], op.module)
    return node.shapes
