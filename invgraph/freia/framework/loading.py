"""Checkpoints of graphs with branches, whose modules FrEIA numbers in an order that differs from process to process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from torch import nn

from invgraph.errors import ArgumentError, CheckpointError
from invgraph.freia.framework.node import Node
from invgraph.freia.orders import Signature, fitting_orders, group, shapes_of

PREFIX = "module_list."

VERSION = 2
"""Version of the networks in the metadata of state dicts; FrEIA's have 1, or none."""


def renumber(inn: Any, state: MutableMapping[str, Any], prefix: str) -> None:
    """Give the modules in a state dict of FrEIA the numbers that they have in a network, matched by structure.

    Raises:
        CheckpointError: Two orders fit.
    """
    start = prefix + PREFIX
    modules = list(inn.module_list)
    saved = group(state, start, len(modules))
    if saved is None or len(modules) != len(inn.graph.layers):
        return  # another network, or exchanged modules: torch reports what differs
    fitting = fitting_orders(inn.graph, [shapes_of(entries) for entries in saved], _own(modules))
    order = next(fitting, None)
    if order is None:
        return
    other = next(fitting, None)
    if other is not None:
        nodes = [node for node in inn.node_list if node.module is not None]
        number = next(n for n, (a, b) in enumerate(zip(order, other, strict=True)) if a != b and saved[n])
        given = f"module {number} of the checkpoint fits {nodes[order[number]]!r} and {nodes[other[number]]!r}"
        advice = "FrEIA numbers branches by memory address, so nothing shows which it is. Pick one of "
        advice += (
            "candidate_orders(inn, state_dict), then load_in_order(inn, state_dict, order), both in invgraph.freia"
        )
        raise CheckpointError("GraphINN.load_state_dict", given, advice)
    _renumber(state, start, saved, order)


def _renumber(state: MutableMapping[str, Any], start: str, saved: list[dict[str, Any]], order: Iterable[int]) -> None:
    for key in [key for key in state if key.startswith(start)]:
        del state[key]
    for entries, place in zip(saved, order, strict=True):
        state.update({f"{start}{place}.{name}": value for name, value in entries.items()})


def candidate_orders(inn: Any, state_dict: Mapping[str, Any]) -> list[list[Node]]:
    """Return the orders of nodes in which FrEIA may have numbered the modules of a checkpoint.

    Only orders are listed in which every module fits. Orders that differ only by nodes without parameters are one.

    Arguments:
        inn: Network, a GraphINN.
        state_dict: State dict that FrEIA saved.

    Raises:
        CheckpointError: The checkpoint has other modules than the network.
    """
    nodes = [node for node in inn.node_list if node.module is not None]
    saved = _saved(inn, state_dict)
    orders = fitting_orders(inn.graph, [shapes_of(entries) for entries in saved], _own(inn.module_list))
    found = [[nodes[place] for place in order] for order in orders]
    if not found:
        raise CheckpointError("candidate_orders", "a checkpoint of another network", "names or shapes differ")
    return found


def load_in_order(inn: Any, state_dict: Mapping[str, Any], order: Iterable[Node | str], *, strict: bool = True) -> None:
    """Load a checkpoint of FrEIA whose modules were numbered in a given order of nodes.

    Arguments:
        inn: Network, a GraphINN.
        state_dict: State dict that FrEIA saved.
        order: All nodes that have a module, or their names, in the order of the numbers in the checkpoint. In the
            process that saves, FrEIA gives it as ``[node.name for node in inn.node_list if node.module]``.
        strict: Refuse missing and surplus keys, as in ``load_state_dict``.

    Raises:
        ArgumentError: The order does not name each node that has a module once.
        CheckpointError: The checkpoint has other modules than the network.
    """
    nodes = [node for node in inn.node_list if node.module is not None]
    listed = list(order)
    places = [place for item in listed for place, node in enumerate(nodes) if item is node or item == node.name]
    if len(places) != len(listed) or sorted(places) != list(range(len(nodes))):
        given = f"order={[item if isinstance(item, str) else item.name for item in listed]}"
        advice = "name each of these nodes once, or pass nodes where names occur twice: "
        raise ArgumentError("load_in_order", given, advice + ", ".join(repr(node.name) for node in nodes))
    renamed: OrderedDict[str, Any] = OrderedDict(state_dict)
    _renumber(renamed, PREFIX, _saved(inn, state_dict), places)
    # Torch reads versions from this attribute: the numbers are ours now.
    renamed._metadata = {"": {"version": VERSION}}  # type: ignore[attr-defined]
    inn.load_state_dict(renamed, strict=strict)


def _own(modules: Iterable[nn.Module]) -> list[Signature]:
    return [shapes_of(module.state_dict()) for module in modules]


def _saved(inn: Any, state_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    saved = group(state_dict, PREFIX, len(inn.module_list))
    if saved is None or not any(saved):
        given = f"keys such as {next(iter(state_dict), None)!r} for {len(inn.module_list)} modules"
        raise CheckpointError("GraphINN", given, "expected the state dict of the network alone: module_list.0. ...")
    return saved
