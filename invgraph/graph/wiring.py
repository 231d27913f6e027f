"""From the outputs back to the inputs: which nodes a graph has, what they are called, and all that can be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from invgraph.core.call import Ports
from invgraph.errors import ArgumentError, GraphError
from invgraph.graph.node import ConditionNode, Declaration, FeatureNode, InputNode, Node, Sources, Value
from invgraph.shapes import numel
from invgraph.torch_internals import floating_tensor


@dataclass(frozen=True)
class Wiring:
    """The nodes of a graph in order of declaration, their names, and the values at its three sides."""

    nodes: tuple[Declaration, ...]
    names: dict[Declaration, str]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    conditions: tuple[Value, ...]
    bare: tuple[bool, bool, bool]
    consumer: dict[Value, Node]
    """The node that transforms a value; the graph's outputs have none."""

    def ports(self) -> tuple[Ports, Ports, Ports]:
        """Return the ports of inputs, outputs and conditions, against which a call is checked."""
        sides = (("input", self.inputs), ("output", self.outputs), ("condition", self.conditions))
        inputs, outputs, conditions = (
            Ports(kind, tuple(value.shape for value in values), tuple(map(self.describe, values)), bare)
            for (kind, values), bare in zip(sides, self.bare, strict=True)
        )
        return inputs, outputs, conditions

    def describe(self, value: Value) -> str:
        """Return the name of a value: its node's, with the number of the output if there are several."""
        name = self.names[value.node]
        return f"{name}[{value.index}]" if len(value.node.outputs) > 1 else name


def wire(inputs: Sources, outputs: Sources, conditions: Sources) -> Wiring:
    """Collect and check the graph between these values.

    Raises:
        GraphError: If the values do not make an invertible graph.
        ArgumentError: If something other than nodes and values was given.
    """
    ins, single_in = _listed(inputs, "inputs")
    outs, single_out = _listed(outputs, "outputs")
    given, single_given = _listed(conditions, "conditions")
    if not ins:
        raise GraphError("Graph", "no inputs", "a graph needs at least one input")
    if not outs:
        raise GraphError("Graph", "no outputs", "a graph needs at least one output")
    _check_sides(ins, outs, given)
    nodes = _reachable(outs)
    names = _names((*ins, *given), nodes)
    consumer: dict[Value, Node] = {}
    wiring = Wiring(nodes, names, ins, outs, given, (single_in, single_out, single_given), consumer)
    _check_listed(wiring)
    _check_consumed(wiring)
    _check_modules(wiring)
    return wiring


def _listed(sources: Sources, what: str) -> tuple[tuple[Value, ...], bool]:
    """The values given for one side of the graph, and whether one was given alone."""
    if isinstance(sources, Value):
        return (sources,), True
    if isinstance(sources, Declaration):
        return (_only_output(sources, what),), True
    if isinstance(sources, (set, frozenset, Mapping)):
        kind = type(sources).__name__
        raise ArgumentError("Graph", f"{what}: a {kind}", f"a {kind} has no order of its own: use a list or tuple")
    if isinstance(sources, (str, Tensor, np.ndarray)) or not isinstance(sources, Iterable):
        given = f"{what}: {type(sources).__name__}"
        raise ArgumentError("Graph", given, "expected a Node or value, or a list of them")
    values: list[Value] = []
    for source in sources:
        if not isinstance(source, (Value, Declaration)):
            raise ArgumentError("Graph", f"{what}: {type(source).__name__}", "expected a Node or value")
        values.append(source if isinstance(source, Value) else _only_output(source, what))
    return tuple(values), False


def _only_output(node: Declaration, what: str) -> Value:
    if len(node.outputs) != 1:
        advice = f"{node.label} has {len(node.outputs)} outputs; pick one with {node.name or 'node'}[0], or list them"
        raise GraphError("Graph", f"{what}: {node!r}", advice)
    return node.outputs[0]


def _check_sides(ins: Sequence[Value], outs: Sequence[Value], given: Sequence[Value]) -> None:
    """Each side holds values of the right kind, none twice."""
    for what, values in (("inputs", ins), ("outputs", outs), ("conditions", given)):
        for value, count in Counter(values).items():
            if count > 1:
                raise GraphError("Graph", f"{what}: {value!r}", f"listed {count} times; list each once")
    for what, values, wanted in (("inputs", ins, InputNode), ("conditions", given, ConditionNode)):
        for value in values:
            if not isinstance(value.node, wanted):
                raise GraphError("Graph", f"{what}: {value!r}", f"{what} of a graph are {wanted.__name__}s")
    for value in outs:
        if isinstance(value.node, (ConditionNode, FeatureNode)):
            advice = f"{value.node.label} is not transformed: a condition can't be an output"
            raise GraphError("Graph", f"outputs: {value!r}", advice)


def _reachable(outs: Sequence[Value]) -> tuple[Declaration, ...]:
    """Every node that the outputs depend on, in order of declaration."""
    found: set[Declaration] = set()
    waiting = [value.node for value in outs]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(value.node for value in (*node.sources, *node.conditions))
    return tuple(sorted(found, key=lambda node: node.order))


def _names(sides: Iterable[Value], nodes: Sequence[Declaration]) -> dict[Declaration, str]:
    """A name for each node; automatic ones count the nodes of a class in order of declaration."""
    everything = sorted({*nodes, *(value.node for value in sides)}, key=lambda node: node.order)
    taken = Counter(node.name for node in everything if node.name is not None)
    for name, count in taken.items():
        if count > 1:
            raise GraphError("Graph", f"name {name!r}", f"used {count} times; names are keys and must differ")
    counters: Counter[str] = Counter()
    names: dict[Declaration, str] = {}
    for node in everything:
        if node.name is None:
            kind = _kind(node)
            names[node] = next(name for name in _numbered(kind, counters) if name not in taken)
        else:
            names[node] = node.name
    for node, name in names.items():
        own = [f"{name}[{k}]" for k in range(len(node.outputs))] if len(node.outputs) > 1 else []
        for value in set(own).intersection(names.values()):
            raise GraphError("Graph", f"name {value!r}", f"an output of node {name!r} is called this: choose another")
    return names


def _kind(node: Declaration) -> str:
    module = node.module if isinstance(node, (Node, FeatureNode)) else None
    return node.kind if module is None else type(module).__name__.lower()


def _numbered(kind: str, counters: Counter[str]) -> Iterator[str]:
    while True:
        counters[kind] += 1
        yield f"{kind}_{counters[kind] - 1}"


def _check_listed(wiring: Wiring) -> None:
    """Refuse inputs and conditions that are missing, or that nothing depends on."""
    for kind, what, listed in (
        (InputNode, "input", wiring.inputs),
        (ConditionNode, "condition", wiring.conditions),
    ):
        used = {node for node in wiring.nodes if isinstance(node, kind)}
        for node in sorted(used - {value.node for value in listed}, key=lambda node: node.order):
            label = f"{what} {wiring.names[node]!r}"
            raise GraphError("Graph", f"{what}s: {_describe(wiring, listed)}", f"depends on {label} that is not listed")
        for value in listed:
            if value.node not in used:
                label = f"{what} {wiring.names[value.node]!r}"
                raise GraphError("Graph", f"{what}s: {_describe(wiring, listed)}", f"no output depends on {label}")


def _describe(wiring: Wiring, values: Sequence[Value]) -> str:
    return ", ".join(wiring.describe(value) for value in values) or "none"


def _check_consumed(wiring: Wiring) -> None:
    """Refuse values that nothing reads, and values that are read twice; note who reads each."""
    outputs = set(wiring.outputs)
    for node in wiring.nodes:
        if not isinstance(node, Node):
            continue
        for value in node.sources:
            other = wiring.consumer.get(value)
            if other is not None or value in outputs:
                names = [wiring.names[other] if other is not None else "the outputs", wiring.names[node]]
                label = " and ".join(repr(name) if name != "the outputs" else name for name in names)
                advice = f"read by {label}; a value may be consumed once (as a condition, any number of times)"
                raise GraphError("Graph", f"value {wiring.describe(value)!r}", advice)
            wiring.consumer[value] = node
    for node in wiring.nodes:
        if isinstance(node, (ConditionNode, FeatureNode)):
            continue
        for value in node.outputs:
            if value not in wiring.consumer and value not in outputs:
                label = f"output {value.index} of {node.kind} {wiring.names[node]!r}"
                raise GraphError("Graph", label, f"{label} is never used; read it in a node, or list it in outputs")


def _check_modules(wiring: Wiring) -> None:
    """Refuse a layer that changes the number of elements, and mixed dtypes or devices."""
    first: tuple[str, Tensor] | None = None
    for node in wiring.nodes:
        if not isinstance(node, (Node, FeatureNode)):
            continue
        name = wiring.names[node]
        if isinstance(node, Node):
            _check_count(f"node {name!r} ({type(node.module).__name__})", node)
        tensor = floating_tensor(node.module)
        if tensor is not None:
            first = first or (name, tensor)
            if (tensor.device, tensor.dtype) != (first[1].device, first[1].dtype):
                kinds = [f"{t.device}" if t.dtype == first[1].dtype else f"{t.dtype}" for t in (first[1], tensor)]
                given = f"parameters on {kinds[0]} ({first[0]!r}) and {kinds[1]} ({name!r})"
                raise GraphError("Graph", given, "a graph has one dtype and one device: move the layers first")


def _check_count(where: str, node: Node) -> None:
    entering, leaving = numel([value.shape for value in node.sources]), numel(node.shapes)
    if entering != leaving:
        raise GraphError(
            where, f"{entering} elements in, {leaving} out", "an invertible layer must keep the number of elements"
        )
