"""FrEIA's nodes: records that point back at what they read."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from invgraph.errors import ArgumentError, GraphError
from invgraph.freia.contract import as_ints, output_dims
from invgraph.shapes import Shape

Output = tuple["Node", int]
"""An output of a node: the node and the output's number."""

_numbers = itertools.count()
_OUTPUT = re.compile(r"out(\d+)")


class Node:
    """A layer between values: its module is built at once, from the shapes of what it reads.

    ``node.out0`` and ``(node, 0)`` are its first output, and so is the bare node.

    Arguments:
        inputs: A node, an output, or a list of either.
        module_type: Class or function that makes the module: ``module_type(dims_in, dims_c=..., **module_args)``; or a
            module that is built already.
        module_args: Further arguments of the module.
        conditions: Nodes whose first output, ``node`` or ``node.out0``, the module is conditioned on.
        name: Name of the node; names may occur twice.

    Attributes:
        module: The module.
        input_dims: Shapes of the inputs.
        output_dims: Shapes of the outputs.
        outputs: For each output, the last node that reads it and the place among that node's inputs; None if unread.
    """

    module: nn.Module | None
    output_dims: list[Shape]

    def __init__(
        self,
        inputs: Any,
        module_type: Any,
        module_args: Mapping[str, Any] | None = None,
        conditions: Any = None,
        name: str | None = None,
    ) -> None:
        self.name = name or f"{type(self).__name__.lower()}_{next(_numbers)}"
        self.inputs = _outputs(repr(self), inputs)
        self.conditions: list[Node] = _conditions(repr(self), conditions)
        self.module_type, self.module_args = module_type, dict(module_args or {})
        self.input_dims = [node.output_dims[index] for node, index in self.inputs]
        self.condition_dims = [node.output_dims[0] for node in self.conditions]
        self.module, self.output_dims = self.build_module(self.condition_dims, self.input_dims)
        self.outputs: list[Output | None] = [None] * len(self.output_dims)
        link([self])

    def build_module(
        self, condition_shapes: list[Shape], input_shapes: list[Shape]
    ) -> tuple[nn.Module | None, list[Shape]]:
        """Return the module and the shapes of its outputs."""
        given = {"dims_c": condition_shapes} if condition_shapes else {}
        module = built(repr(self), self.module_type, self.module_args, input_shapes, **given)
        return module, output_dims(module, input_shapes)

    def __getattr__(self, name: str) -> Any:
        match = _OUTPUT.fullmatch(name)
        if match is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        index = int(match.group(1))
        if index >= len(self.output_dims):
            raise AttributeError(f"{self!r} has {len(self.output_dims)} outputs, so there is no {name}")
        return self, index

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle: without readers, and what made the module, which is often a lambda."""
        return {**self.__dict__, "module_type": None, "module_args": {}, "outputs": [None] * len(self.outputs)}

    def __str__(self) -> str:
        kind = "" if self.module is None else type(self.module).__name__
        return f"{self!r}: {self.input_dims} -> {kind} -> {self.output_dims}"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name!r}"


def link(nodes: Iterable[Node]) -> None:
    """Record in the sources of these nodes which node reads each of their outputs."""
    for node in nodes:
        for place, (source, index) in enumerate(node.inputs):
            source.outputs[index] = (node, place)


def collect_nodes(*input_nodes: Node) -> list[Node]:
    """Return all nodes that are connected with these: their readers, the readers' conditions, and so on.

    Arguments:
        input_nodes: Nodes to start from; the inputs of a network lead to all of it.

    Example:
        >>> import invgraph as ig
        >>> Ff, Fm = ig.freia.framework, ig.freia.modules
        >>> x = Ff.InputNode(4, name="x")
        >>> _ = Ff.OutputNode(Ff.Node(x, Fm.PermuteRandom, {"seed": 0}, name="shuffle"), name="z")
        >>> Ff.collect_nodes(x)
        [InputNode 'x', Node 'shuffle', OutputNode 'z']
    """
    found = dict.fromkeys(input_nodes)
    waiting = deque(found)
    while waiting:
        node = waiting.popleft()
        readers = [output[0] for output in node.outputs if output is not None]
        new = dict.fromkeys(other for other in (*readers, *node.conditions) if other not in found)
        found.update(new)
        waiting.extend(new)
    return list(found)


def built(where: str, module_type: Any, module_args: Mapping[str, Any], *args: Any, **kwargs: Any) -> nn.Module:
    """Return the module that a class or function makes; one that is built already takes no arguments."""
    if not isinstance(module_type, nn.Module):
        module: nn.Module = module_type(*args, **kwargs, **module_args)
        return module
    if module_args:
        given = f"a built {type(module_type).__name__} with arguments {', '.join(module_args)}"
        raise ArgumentError(where, given, "pass the class to have it built with arguments, or the module alone")
    if args:
        require_dims(where, module_type, args[0], kwargs.get("dims_c", ()))
    return module_type


def require_dims(where: str, module: nn.Module, dims_in: Sequence[Shape], dims_c: Sequence[Shape]) -> None:
    """Refuse a module that was built for other shapes than those that it is to be given."""
    own = getattr(module, "dims_in", None)
    own = [own] if own and isinstance(own[0], int) else own  # the way of FrEIA's ActNorm
    own_c = getattr(module, "dims_c", None)
    for kind, wanted, found in (("inputs", dims_in, own), ("conditions", dims_c, own_c)):
        if found and [tuple(shape) for shape in found] != [tuple(shape) for shape in wanted]:
            given = f"a built {type(module).__name__} for {kind} of shapes {', '.join(map(str, found))}"
            raise GraphError(where, given, f"here they are {', '.join(map(str, wanted)) or 'none'}: build it for these")


class _Start(Node):
    """A node that only brings a value."""

    def __init__(self, *dims: int, name: str | None = None) -> None:
        sizes = dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
        self.dims: Shape = tuple(as_ints(sizes))
        super().__init__([], None, {}, name=name)

    def build_module(
        self, condition_shapes: list[Shape], input_shapes: list[Shape]
    ) -> tuple[nn.Module | None, list[Shape]]:
        return None, [self.dims]


class InputNode(_Start):
    """An input of the network.

    Arguments:
        dims: Sizes, without the batch.
        name: Name of the node.
    """


class ConditionNode(_Start):
    """A condition of the network.

    Arguments:
        dims: Sizes, without the batch; whole floats are taken as ints.
        name: Name of the node.
    """


class FeedForwardNode(Node):
    """A network of conditions without an inverse, computed forward in both directions, whose output others are given.

    Arguments:
        conditions: Nodes that the network reads: ``module(*conditions)``.
        output_dims: Shape of its output.
        module_type: Class or function that makes the network, or a network that is built already.
        module_args: Arguments of the class.
        name: Name of the node.
    """

    def __init__(
        self,
        conditions: Any,
        output_dims: Sequence[int],
        module_type: Any,
        module_args: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.module_output_dims: Shape = tuple(as_ints(output_dims))
        super().__init__([], module_type, module_args, conditions=conditions, name=name)

    def build_module(
        self, condition_shapes: list[Shape], input_shapes: list[Shape]
    ) -> tuple[nn.Module | None, list[Shape]]:
        return built(repr(self), self.module_type, self.module_args), [self.module_output_dims]


class OutputNode(Node):
    """An output of the network.

    Arguments:
        in_node: The node, or the output, whose value the network returns.
        name: Name of the node.
    """

    def __init__(self, in_node: Any, name: str | None = None) -> None:
        super().__init__(in_node, None, {}, name=name)

    def build_module(
        self, condition_shapes: list[Shape], input_shapes: list[Shape]
    ) -> tuple[nn.Module | None, list[Shape]]:
        if len(input_shapes) != 1:
            given = f"{len(input_shapes)} inputs"
            raise GraphError(repr(self), given, "an output node has one input; write one OutputNode for each output")
        return None, []


def _outputs(where: str, inputs: Any) -> list[Output]:
    """Return what a node reads as a list of outputs; a bare node stands for its first one."""
    if isinstance(inputs, Node) or _is_output(inputs):
        inputs = [inputs]
    if not isinstance(inputs, (list, tuple)):
        given = f"inputs: {type(inputs).__name__}"
        raise ArgumentError(where, given, "expected a node, node.out0, (node, 0), or a list of these")
    outputs: list[Output] = []
    for source in inputs:
        node, index = (source, 0) if isinstance(source, Node) else tuple(source) if _is_output(source) else (None, 0)
        if not isinstance(node, Node):
            given = f"inputs: a list with a {type(source).__name__}"
            raise ArgumentError(where, given, "expected a node, node.out0, (node, 0), or a list of these")
        if not 0 <= index < len(node.output_dims):
            given = f"output {index} of {node!r}"
            raise GraphError(where, given, f"the node has {len(node.output_dims)} outputs, counted from 0")
        outputs.append((node, index))
    return outputs


def _is_output(source: Any) -> bool:
    """True for a pair of a node and a number."""
    return (
        isinstance(source, (list, tuple))
        and len(source) == 2
        and isinstance(source[0], Node)
        and isinstance(source[1], int)
    )


def _conditions(where: str, conditions: Any) -> list[Node]:
    if conditions is None:
        return []
    listed = list(conditions) if isinstance(conditions, (list, tuple)) and not _is_output(conditions) else [conditions]
    nodes = [node[0] if _is_output(node) and node[1] == 0 else node for node in listed]
    for node in nodes:
        if not isinstance(node, Node):
            given = f"conditions: {type(node).__name__}"
            raise ArgumentError(where, given, "expected a node or a list of nodes")
    return nodes
