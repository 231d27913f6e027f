"""FrEIA's layers as nodes of native graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from invgraph.freia.contract import wrap
from invgraph.graph.node import Declaration, Node, Source, Value


def node(
    inputs: Any,
    module_type: Any,
    module_args: Mapping[str, Any] | None = None,
    conditions: Any = None,
    name: str | None = None,
) -> Node:
    """A native node around a layer of FrEIA's kind, with the arguments of FrEIA's ``Node``.

    Arguments:
        inputs: Native nodes or values; a node of several outputs stands for its first.
        module_type: Class or function that makes the layer: ``module_type(dims_in, dims_c=..., **module_args)``.
        module_args: Further arguments of the layer.
        conditions: Native conditions, features or values.
        name: Name of the node. Default: ``contract`` with a number.

    Example:
        >>> import torch, invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> h = ig.freia.node(x, ig.freia.modules.PermuteRandom, {"seed": 0}, name="shuffle")
        >>> ig.Graph(x, h)(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))[0]
        tensor([[2., 3., 1., 0.]])
    """
    values, given = _values(inputs), _values(() if conditions is None else conditions)
    dims_in, dims_c = [value.shape for value in values], [value.shape for value in given]
    conditional = {"dims_c": dims_c} if dims_c else {}
    layer = module_type(dims_in, **conditional, **(module_args or {}))
    return Node(values, wrap(layer, dims_in, dims_c), conditions=given, name=name)


def _values(sources: Source | Iterable[Source]) -> list[Value]:
    listed = [sources] if isinstance(sources, (Declaration, Value)) else list(sources)
    return [source if isinstance(source, Value) else source[0] for source in listed]
