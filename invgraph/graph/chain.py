"""Several layers one after the other, declared in one call."""

from __future__ import annotations

from collections.abc import Mapping

from invgraph.core.invertible import Invertible
from invgraph.errors import ArgumentError
from invgraph.graph.names import check_name
from invgraph.graph.node import Node, Sources


def chain(inputs: Sources, *layers: object, conditions: Sources = (), name: str | None = None) -> Node:
    """Declare a node for each layer, each of which reads the output of the one before it; return the last.

    Arguments:
        inputs: Values that the first layer reads.
        layers: Classes, pairs ``(class, args)``, or layers that are built already.
        conditions: Conditions of every layer that takes any: layers that were built with some, and classes that take
            some with these arguments (an ``Elementwise`` without a subnet takes none).
        name: Prefix of the names: the nodes are called ``name_0``, ``name_1``, ...

    Example:
        >>> import invgraph as ig
        >>> x = ig.InputNode(1, 28, 28, name="image")
        >>> h = ig.chain(x, ig.Flatten, (ig.Permute, {"seed": 1}))
        >>> h.shapes
        ((784,),)
    """
    if not layers:
        raise ArgumentError("chain", "no layers", "a chain needs at least one layer")
    if name is not None:
        check_name("chain", name)
    node: Sources = inputs
    for index, layer in enumerate(layers):
        module, args = layer if isinstance(layer, tuple) and len(layer) == 2 else (layer, None)
        given = conditions if _takes_conditions(module, args) else ()
        node = Node(node, module, args, conditions=given, name=None if name is None else f"{name}_{index}")
    assert isinstance(node, Node)
    return node


def _takes_conditions(module: object, args: object) -> bool:
    """Return True if a layer takes conditions, as it was built or as it would be built with these arguments."""
    if isinstance(module, Invertible):
        return bool(module.cond_shapes)
    if not isinstance(module, type) or not issubclass(module, Invertible) or not module.conditional:
        return False
    needed = module.condition_argument
    return needed is None or (isinstance(args, Mapping) and args.get(needed) is not None)
