"""Small functions on tensors and structures that FrEIA's development version exports as ``FrEIA.utils``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.errors import ArgumentError
from invgraph.freia.contract import output_dims
from invgraph.freia.framework.graph_inn import GraphINN
from invgraph.freia.framework.node import Node

__all__ = ["f_except", "force_to", "output_dims_compatible", "plot_graph", "sum_except", "sum_except_batch"]


def output_dims_compatible(invertible_module: Any) -> Any:
    """Return the shapes of a module's outputs, networks included."""
    return output_dims(invertible_module, invertible_module.dims_in)


def plot_graph(node_list: Sequence[Node], path: str | os.PathLike[str], filename: str) -> None:
    """Draw the network of these nodes into a folder, as ``GraphINN.plot`` does."""
    GraphINN(node_list).plot(path, filename)


def f_except(f: Callable[..., Any], x: Tensor, *dim: int, **kwargs: Any) -> Any:
    """Apply a function with an argument ``dim`` to all axes but some.

    Arguments:
        f: Function ``f(x, dim=axes, **kwargs)``, such as ``torch.sum``.
        x: Tensor.
        dim: Axes to leave out; negative ones count from the end.
        kwargs: Further arguments of the function.

    Raises:
        ArgumentError: If no axis is left.

    Example:
        >>> import torch, invgraph.freia as FrEIA
        >>> FrEIA.utils.f_except(torch.mean, torch.ones(2, 3, 4), 0).shape
        torch.Size([2])
    """
    left_out = {axis % x.ndim for axis in dim} if x.ndim else set()
    axes = [axis for axis in range(x.ndim) if axis not in left_out]
    if not axes:
        raise ArgumentError("f_except", f"dim={dim} of x of shape {tuple(x.shape)}", "leave at least one axis to f")
    return f(x, dim=axes, **kwargs)


def sum_except(x: Tensor, *dim: int) -> Tensor:
    """Return the sum over all axes but some."""
    total: Tensor = f_except(torch.sum, x, *dim)
    return total


def sum_except_batch(x: Tensor) -> Tensor:
    """Return the sum over all axes but the first."""
    return sum_except(x, 0)


def force_to(obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply ``.to(...)`` to all tensors in an object, and return it.

    Lists, dicts and objects are changed in place; a tensor or tuple is replaced in what holds it. It moves
    ``torch.distributions``, which have no method ``to``.

    Arguments:
        obj: Tensor, list, tuple, dict, or object with attributes.
        args: Arguments of ``Tensor.to``.
        kwargs: Keyword arguments of ``Tensor.to``.
    """
    seen: dict[int, Any] = {}

    def moved(value: Any) -> Any:
        if id(value) in seen:
            return seen[id(value)]
        if isinstance(value, Tensor):
            result: Any = value.to(*args, **kwargs)
            seen[id(value)] = result
            return result
        if isinstance(value, tuple):
            items = [moved(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        seen[id(value)] = value
        if isinstance(value, dict):
            value.update({key: moved(item) for key, item in value.items()})
        elif isinstance(value, list):
            value[:] = [moved(item) for item in value]
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            moved(vars(value))
        return value

    return moved(obj)
