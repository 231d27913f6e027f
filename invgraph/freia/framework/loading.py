"""Checkpoints of graphs with branches, whose modules FrEIA numbers in an order that differs from process to process."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from torch import nn

from invgraph.errors import CheckpointError
from invgraph.freia.orders import PREFIX, Order, Signature, fitting_orders, group, renumber_keys, shapes_of

VERSION = 2
"""Version of the networks in the metadata of state dicts; FrEIA's have 1, or none."""


class OrderWarning(UserWarning):
    """A checkpoint numbers the modules of a network in another order, which the state of an optimizer still has."""


def renumber(inn: Any, state: MutableMapping[str, Any], prefix: str) -> Order | None:
    """Give the modules in a state dict of FrEIA the numbers that they have in a network, matched by structure.

    Returns:
        The place in the network of each number in the state dict; None if the state dict is of another network.

    Raises:
        CheckpointError: If two orders fit.
    """
    start = prefix + PREFIX
    modules = list(inn.module_list)
    saved = group(state, start, len(modules))
    if saved is None or len(modules) != len(inn.graph.layers):
        return None  # another network, or exchanged modules: torch reports what differs
    fitting = fitting_orders(inn.graph, [shapes_of(entries) for entries in saved], signatures(modules))
    order = next(fitting, None)
    if order is None:
        return None
    other = next(fitting, None)
    if other is not None:
        nodes = nodes_of(inn)
        number = next(n for n, (a, b) in enumerate(zip(order, other, strict=True)) if a != b and saved[n])
        given = f"module {number} of the checkpoint fits {nodes[order[number]]!r} and {nodes[other[number]]!r}"
        more = f", prefix={prefix!r}" if prefix else ""
        advice = "FrEIA numbers branches by memory address, so nothing shows which it is. Pick one of "
        advice += f"candidate_orders(model, state_dict{more}), then load_in_order(model, state_dict, order{more}), "
        advice += "both in invgraph.freia; model is what load_state_dict was called on"
        raise CheckpointError("GraphINN.load_state_dict", given, advice)
    renumber_keys(state, start, order)
    return order


def warn_of_order(inn: Any, order: Sequence[int], prefix: str) -> None:
    """Warn if parameters have other places in the network than in the checkpoint that was loaded."""
    modules = list(inn.module_list)
    places = [place for place in order if any(True for _ in modules[place].parameters())]
    if places != sorted(places):
        name = f"the network {prefix.removesuffix('.')!r}" if prefix else "the network"
        text = (
            f"the checkpoint numbers the modules of {name} in another order than this process does. The weights are "
            "in their places, but the state of an optimizer, and all else that counts parameters, is still in the "
            "checkpoint's order: pass it through invgraph.freia.optimizer_in_order(model, optimizer, state_dict) "
            "before optimizer.load_state_dict"
        )
        warnings.warn(text, OrderWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return the number of calls from the caller of this function to the first outside of torch and this library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("torch", "invgraph"):
        frame, level = frame.f_back, level + 1
    return level


def nodes_of(inn: Any) -> list[Any]:
    """Return the nodes that have a module, in the order of ``module_list``."""
    return [node for node in inn.node_list if node.module is not None]


def signatures(modules: Iterable[nn.Module]) -> list[Signature]:
    """Return names and shapes of the tensors of each module."""
    return [shapes_of(module.state_dict()) for module in modules]
