"""Random graphs under construction: values still to be transformed, and valid conditions for new nodes."""

from __future__ import annotations

from invgraph.shapes import Shape
from invgraph.testing.program import CONDITION, INPUT, Op, Program, Ref, out_shapes


class Sketch:
    """Program that grows operation by operation and is a valid graph at every step.

    Arguments:
        inputs: Shapes of the inputs.
        conditions: Shapes of the conditions.
    """

    def __init__(self, inputs: tuple[Shape, ...], conditions: tuple[Shape, ...]) -> None:
        self.inputs, self.conditions = inputs, conditions
        self.ops: list[Op] = []
        self.shapes = {Ref(INPUT, index): shape for index, shape in enumerate(inputs)}
        self.live = list(self.shapes)
        self.consumer: dict[Ref, int] = {}
        given = {Ref(CONDITION, index): shape for index, shape in enumerate(conditions)}
        self.shapes |= given
        self.needs: dict[Ref, frozenset[Ref]] = dict.fromkeys(given, frozenset())
        """Transformed values from which each condition and feature is computed."""

    def add(self, op: Op) -> tuple[Ref, ...]:
        """Append an operation and return its outputs."""
        number = len(self.ops)
        made = {Ref(number, index): shape for index, shape in enumerate(out_shapes(op, self.shapes))}
        self.ops.append(op)
        self.shapes |= made
        if op.is_feature:
            read = frozenset().union(*(self.inner(ref) for ref in op.conditions))
            self.needs |= dict.fromkeys(made, read)
        else:
            self.live = [ref for ref in self.live if ref not in op.sources] + list(made)
            self.consumer |= dict.fromkeys(op.sources, number)
        return tuple(made)

    def inner(self, ref: Ref) -> frozenset[Ref]:
        """Return the transformed values on which a value depends; a transformed value depends on itself."""
        return self.needs.get(ref, frozenset((ref,)))

    def allowed(self, sources: tuple[Ref, ...]) -> list[Ref]:
        """Return the valid conditions of a node with these sources: those that cause no cycle in the inverse."""
        return [ref for ref in self.shapes if all(self._known_before(value, sources) for value in self.inner(ref))]

    def _known_before(self, value: Ref, sources: tuple[Ref, ...]) -> bool:
        """True if the inverse can compute the value before it inverts a node that transforms the sources.

        This holds if nothing that the inverse of the value's consumer needs, directly or indirectly, is a source.
        """
        if value in sources:
            return False
        waiting, seen = [value], {value}
        while waiting:
            consumer = self.consumer.get(waiting.pop())
            if consumer is None:
                continue
            op = self.ops[consumer]
            made = {ref for ref in self.shapes if ref.maker == consumer}
            more = made.union(*(self.inner(ref) for ref in op.conditions)) - seen
            if not more.isdisjoint(sources):
                return False
            seen |= more
            waiting += more
        return True

    def unused(self) -> list[Ref]:
        """Return the conditions that no layer reads, not even through features."""
        waiting = [ref for op in self.ops if not op.is_feature for ref in op.conditions]
        read = set(waiting)
        while waiting:
            ref = waiting.pop()
            if ref in self.needs and ref.maker >= 0:
                more = set(self.ops[ref.maker].conditions) - read
                read |= more
                waiting += more
        return [ref for ref in self.needs if ref.maker == CONDITION and ref not in read]

    def program(self, single: tuple[bool, bool, bool]) -> Program:
        """Return the current graph."""
        return Program(self.inputs, self.conditions, tuple(self.ops), tuple(self.live), single)
