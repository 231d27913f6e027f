"""Declaration: values, and the nodes that read and make them. No tensor is touched, no parent changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from invgraph.arguments import is_int
from invgraph.core.invertible import Invertible
from invgraph.errors import ArgumentError, GraphError
from invgraph.graph.build_layer import build_layer, build_network, feature_shapes
from invgraph.graph.copying import CopiedNode, CopiedValue
from invgraph.graph.names import check_name
from invgraph.numerics.seeding import seed_from
from invgraph.shapes import Shape, as_shape

_order = itertools.count()


@dataclass(frozen=True, eq=False, repr=False)
class Value(CopiedValue):
    """One output of a node, which other nodes read.

    Attributes:
        node: The node that makes it.
        index: Its place among the outputs of the node.
        shape: Its shape, without the batch.

    Example:
        >>> import invgraph as ig
        >>> ig.InputNode(4, name="x")[0]
        input 'x' (4,)
    """

    node: Declaration
    index: int
    shape: Shape

    def __repr__(self) -> str:
        place = f"[{self.index}]" if len(self.node.shapes) > 1 else ""
        return f"{self.node.label}{place} {self.shape}"


class Declaration(CopiedNode):
    """Base class of all nodes: a name, an order of declaration, a seed, and the values they make.

    Records are frozen and point back only to the values that they read: declaring a node changes no other.

    Attributes:
        seed: Number that follows from the node's kind, class and name and from all that it reads, so that it is the
            same in every process. Inputs and conditions differ by name and shape.
    """

    name: str | None
    order: int
    seed: int
    shapes: tuple[Shape, ...]
    outputs: tuple[Value, ...]
    sources: tuple[Value, ...] = ()
    conditions: tuple[Value, ...] = ()
    kind: str = "node"

    def _freeze(self, name: object, shapes: tuple[Shape, ...], seed: int, **fields: object) -> None:
        values = tuple(Value(self, index, shape) for index, shape in enumerate(shapes))
        fields.update(name=check_name(self.kind, name), order=next(_order), seed=seed)
        fields.update(shapes=shapes, outputs=values)
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __len__(self) -> int:
        return len(self.outputs)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.outputs)

    def __getitem__(self, index: int) -> Value:
        if not is_int(index):
            raise ArgumentError(self.label, f"index {index!r}", "an output is picked by an int")
        if not 0 <= index < len(self.outputs):
            raise GraphError(self.label, f"index {index}", f"the node has outputs 0..{len(self.outputs) - 1}")
        return self.outputs[int(index)]

    @property
    def shape(self) -> Shape:
        """Shape of the value that the node makes.

        Raises:
            GraphError: If the node makes several values; each has a shape, ``node[0].shape``.
        """
        if len(self.shapes) != 1:
            raise GraphError(self.label, f"shape of {len(self.shapes)} outputs", "each has its own: use node[0].shape")
        return self.shapes[0]

    @property
    def label(self) -> str:
        """Description of the node in errors and pictures."""
        return f"{self.kind} {self.name!r}" if self.name else f"unnamed {self.kind}"

    def __repr__(self) -> str:
        return f"<{self.label}: {', '.join(str(shape) for shape in self.shapes)}>"


Source: TypeAlias = Declaration | Value
Sources: TypeAlias = Source | Iterable[Source]


class InputNode(Declaration):
    """An input of the graph.

    Arguments:
        shape: Its sizes, without the batch.
        name: Name in errors and in the graph. Seeds that follow from a layer's place in the graph differ between
            branches of named inputs; inputs of one shape without names give their branches equal seeds.

    Example:
        >>> import invgraph as ig
        >>> ig.InputNode(3, 8, 8, name="image")
        <input 'image': (3, 8, 8)>
    """

    kind = "input"

    def __init__(self, *shape: int, name: str | None = None) -> None:
        own = _own_shape("InputNode", shape)
        self._freeze(name, (own,), _seed(self.kind, own, name))


class ConditionNode(Declaration):
    """A condition of the graph, which is given in both directions and never transformed.

    Arguments:
        shape: Its sizes, without the batch.
        name: Name in errors and in the graph.

    Example:
        >>> import invgraph as ig
        >>> ig.ConditionNode(10, name="digit")
        <condition 'digit': (10,)>
    """

    kind = "condition"

    def __init__(self, *shape: int, name: str | None = None) -> None:
        own = _own_shape("ConditionNode", shape)
        self._freeze(name, (own,), _seed(self.kind, own, name))


class FeatureNode(Declaration):
    """A feed-forward network of conditions, computed forward in both directions (the paper's conditioning network).

    Arguments:
        conditions: Values that the network reads: conditions, other features, or values inside the graph.
        module: An ``nn.Module``, or a class together with ``args``; it returns a tensor or a tuple of tensors.
        args: Keyword arguments of the class.
        name: Key of its parameters in the graph's ``state_dict``.

    Example:
        >>> import invgraph as ig, torch
        >>> c = ig.ConditionNode(10, name="digit")
        >>> ig.FeatureNode(c, torch.nn.Linear, {"in_features": 10, "out_features": 4}, name="embedding")
        <feature 'embedding': (4,)>
    """

    kind = "feature"
    module: nn.Module

    def __init__(
        self, conditions: Sources, module: object, args: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> None:
        where = _label("feature", name, module)
        sources = _values(where, conditions, "conditions")
        net = build_network(where, module, args)
        shapes = feature_shapes(where, net, tuple(value.shape for value in sources))
        seed = _seed(self.kind, _class_name(net), name, sources)
        self._freeze(name, shapes, seed, conditions=sources, module=net)


class Node(Declaration):
    """An invertible layer between values.

    Arguments:
        inputs: Values that the layer transforms: a node with one output, or a value such as ``split[0]``; or several.
        module: Class of a layer, to be built with ``args``; or a layer or graph that is built already.
        args: Keyword arguments of the class. A class with an argument ``seed`` that is None by default gets a seed from
            the node's place in the graph, unless one is given.
        conditions: Values that the layer is conditioned on: conditions, features, or values inside the graph.
        name: Key of its parameters in the graph's ``state_dict``. Default: the class's name with a number.

    Raises:
        GraphError: If the layer does not fit the shapes of the values that it reads.
        ArgumentError: If an argument is unknown, missing or of the wrong type.

    Example:
        >>> import invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> a, b = ig.Node(x, ig.Split, {"sizes": (1, 3)}, name="split")
        >>> b
        node 'split'[1] (3,)
    """

    module: Invertible

    def __init__(
        self,
        inputs: Sources,
        module: object,
        args: Mapping[str, Any] | None = None,
        *,
        conditions: Sources = (),
        name: str | None = None,
    ) -> None:
        where = _label("node", name, module)
        sources = _values(where, inputs, "inputs")
        given = _values(where, conditions, "conditions")
        if not sources:
            raise GraphError(where, "no inputs", "a node reads at least one value")
        for value in sources:
            if isinstance(value.node, (ConditionNode, FeatureNode)):
                advice = f"{value.node.label} can't be transformed: write conditions={value.node.name or '...'}"
                raise GraphError(where, f"inputs: {value!r}", f"{advice}, or use conditions= with it")
        seed = _seed(self.kind, _class_name(module), name, sources, given)
        read = ", ".join(value.node.label for value in sources)
        shapes = tuple(value.shape for value in sources), tuple(value.shape for value in given)
        layer = build_layer(where, read, module, args, shapes, seed=seed)
        self._freeze(name, layer.out_shapes, seed, sources=sources, conditions=given, module=layer)


def _label(kind: str, name: object, module: object) -> str:
    """Return what an error of a declaration calls the node: ``node 'a' (Haar)``."""
    layer = module.__name__ if isinstance(module, FunctionType) else _class_name(module)
    return f"{kind} {name!r} ({layer})" if isinstance(name, str) and name else f"{kind} ({layer})"


def _class_name(module: object) -> str:
    return module.__name__ if isinstance(module, type) else type(module).__name__


def _seed(kind: str, what: object, name: object, *read: tuple[Value, ...]) -> int:
    """Return the seed of a node, from its kind, class or shape, name, and what it reads."""
    seeds = [[(value.node.seed, value.index) for value in values] for values in read]
    return seed_from(kind, what, check_name(kind, name), seeds)


def _own_shape(where: str, shape: tuple[object, ...]) -> Shape:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        sizes = ", ".join(map(str, shape[0]))
        raise ArgumentError(where, f"the {type(shape[0]).__name__} {shape[0]}", f"write {where}({sizes})")
    return as_shape(shape, where)


def _values(where: str, sources: object, what: str) -> tuple[Value, ...]:
    """The values meant by a node, a value, or several of either."""
    if isinstance(sources, (Declaration, Value)):
        return (_value(where, sources, what),)
    if isinstance(sources, Tensor):
        raise ArgumentError(where, f"{what}: a Tensor", "declare shapes, not data: start from InputNode(...)")
    if isinstance(sources, (set, frozenset, Mapping)):
        kind = type(sources).__name__
        raise ArgumentError(where, f"{what}: a {kind}", f"a {kind} has no order of its own: use a list or tuple")
    if isinstance(sources, (str, np.ndarray)) or not isinstance(sources, Iterable):
        raise ArgumentError(where, f"{what}: {type(sources).__name__}", "expected a Node or value, or several of them")
    return tuple(_value(where, source, what) for source in sources)


def _value(where: str, source: object, what: str) -> Value:
    if isinstance(source, Value):
        return source
    if isinstance(source, Tensor):
        raise ArgumentError(where, f"{what}: a Tensor", "declare shapes, not data: start from InputNode(...)")
    if not isinstance(source, Declaration):
        raise ArgumentError(where, f"{what}: {type(source).__name__}", "expected a Node or value")
    if len(source.outputs) != 1:
        advice = f"{source.label} has {len(source.outputs)} outputs; pick one with {source.name or 'node'}[0]"
        raise GraphError(where, f"{what}: {source!r}", advice)
    return source.outputs[0]
