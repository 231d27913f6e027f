"""A random graph written down as a list of operations, so that it can be declared in more than one way."""

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
"""What makes a value that no operation makes."""


class Ref(NamedTuple):
    """A value: the number of the operation that makes it (or INPUT, CONDITION), and which of its outputs it is."""

    maker: int
    output: int


@dataclass(frozen=True)
class Op:
    """One node: its layer, feature network or inner program, and the values it reads."""

    module: nn.Module | None
    sources: tuple[Ref, ...]
    conditions: tuple[Ref, ...] = ()
    inner: Program | None = None

    @property
    def feature(self) -> bool:
        """Whether it computes a feature of conditions."""
        return not self.sources


@dataclass(frozen=True)
class Program:
    """A graph: the shapes it starts from, its operations, and what it returns.

    ``single`` says of inputs, outputs and conditions whether one value is declared alone, as in ``Graph(x, y, c)``.
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
        """The graph, with copies of the layers.

        Arguments:
            order: in which order the operations are declared; default: as written.
            name: makes a node's name from its place, e.g. ``op3``, or ``op3_op0`` within a nested graph.
            inline: declare the nodes of nested graphs in the graph itself.
        """
        sides = (("x", self.inputs, InputNode), ("c", self.conditions, ConditionNode))
        ins, given = (
            [node(*shape, name=name(f"{letter}{index}")).outputs[0] for index, shape in enumerate(shapes)]
            for letter, shapes, node in sides
        )
        outs = self._nodes(ins, given, "", order, name, inline)
        chosen = zip((ins, outs, given), self.single, strict=True)
        x, y, c = (side[0] if alone and len(side) == 1 else tuple(side) for side, alone in chosen)
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
        """Declare the nodes, and return the outputs."""
        values = {Ref(INPUT, index): value for index, value in enumerate(ins)}
        values |= {Ref(CONDITION, index): value for index, value in enumerate(given)}
        for number in order if order is not None else range(len(self.ops)):
            op, place = self.ops[number], f"{prefix}op{number}"
            sources, conditions = ([values[ref] for ref in refs] for refs in (op.sources, op.conditions))
            made: Sequence[Value]
            if op.feature:
                made = FeatureNode(conditions, copy.deepcopy(op.module), name=name(place)).outputs
            elif op.inner is not None and inline:
                made = op.inner._nodes(sources, conditions, f"{place}_", None, name, inline)
            else:
                layer = op.inner.declare(name=name) if op.inner is not None else copy.deepcopy(op.module)
                made = Node(sources, layer, conditions=conditions, name=name(place)).outputs
            values |= {Ref(number, index): value for index, value in enumerate(made)}
        return [values[ref] for ref in self.outputs]


def out_shapes(op: Op, shapes: dict[Ref, Shape]) -> tuple[Shape, ...]:
    """The shapes of what an operation makes."""
    if op.inner is not None:
        inner = op.inner.declare()
        return inner.out_shapes
    if isinstance(op.module, Invertible):
        return op.module.out_shapes
    assert op.module is not None
    node = FeatureNode([ConditionNode(*shapes[ref]) for ref in op.conditions], op.module)
    return node.shapes
