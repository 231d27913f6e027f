"""FrEIA's weights for a graph moved to the native API: ``python -m invgraph.freia.convert`` shows how it is called."""

from __future__ import annotations

import argparse
import importlib
import operator
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invgraph.checkpoint.checkpoint import save
from invgraph.errors import ArgumentError, CheckpointError, InvgraphError
from invgraph.freia.counterparts import counterpart
from invgraph.freia.orders import PREFIX, fitting_orders, group, prefixes, shapes_of
from invgraph.graph.graph import Graph

_WHERE = "convert"


def convert(
    state_dict: Mapping[str, Any], graph: Graph, order: Sequence[str] | None = None, *, prefix: str | None = None
) -> None:
    """Load FrEIA's weights into a native graph of the same structure, so that it gives FrEIA's numbers.

    Arguments:
        state_dict: State dict that FrEIA saved; of a whole program, where it holds one network of FrEIA's.
        graph: Native graph with a node for each of FrEIA's.
        order: Names of all nodes that hold a layer, in the order of the numbers in the checkpoint; needed where
            branches fit in two ways.
        prefix: Start of the network's keys, such as ``"inn."``; needed where the state dict holds several networks.

    Raises:
        CheckpointError: If the checkpoint does not fit, fits in two ways, or a layer computes something else than any
            of FrEIA's.
        ArgumentError: If the order does not name each node once.
    """
    layers = list(graph.layers.items())
    pairs = [counterpart(name, layer) for name, layer in layers]
    start = _start(state_dict, prefix)
    saved = group(state_dict, start, len(layers))
    if saved is None:
        numbers = {int(key.removeprefix(start).split(".")[0]) for key in state_dict if key.startswith(start)}
        given = f"module {max(numbers)} in the checkpoint, and {len(layers)} layers in the graph"
        raise CheckpointError(
            _WHERE, given, "the graph needs a node for each node of the FrEIA model, including those without weights"
        )
    own = [pair.signature(layer) for pair, (_, layer) in zip(pairs, layers, strict=True)]
    places = _places(graph, saved, own, order)
    state = graph.state_dict()
    converted: dict[str, Any] = dict(state)
    for entries, place in zip(saved, places, strict=True):
        for theirs, ours in pairs[place].names.items():
            key = f"layers.{layers[place][0]}.{ours}"
            converted[key] = entries[theirs].reshape(state[key].shape)
        converted.update({f"layers.{layers[place][0]}.{ours}": value for ours, value in pairs[place].made.items()})
    graph.load_state_dict(converted)


def _start(state: Mapping[str, Any], prefix: str | None) -> str:
    """Return the start of the keys of a network, up to the number of the module."""
    every = prefixes(state)
    found = [prefix] if prefix in every else [each for each in every if prefix is None or each.startswith(prefix)]
    if len(found) != 1:
        given = "networks at " + ", ".join(map(repr, found)) if found else _listed(state)
        given += "" if prefix is None else f", for prefix={prefix!r}"
        advice = "expected the weights of one network: pick it by prefix= or --prefix, the key in a file by --key"
        raise CheckpointError(_WHERE, given, advice)
    return found[0] + PREFIX


def _places(graph: Graph, saved: Any, own: Any, order: Sequence[str] | None) -> Sequence[int]:
    """Return the layer that each numbered module of the checkpoint belongs to."""
    names = list(graph.layers)
    signatures = [shapes_of(entries) for entries in saved]
    if order is not None:
        if sorted(order) != sorted(names):
            raise ArgumentError(_WHERE, f"order={list(order)}", f"name each of these nodes once: {', '.join(names)}")
        places = [names.index(name) for name in order]
        _require_fit(names, signatures, own, places)
        return places
    fitting = fitting_orders(graph, signatures, own, partly=False)
    first, second = next(fitting, None), next(fitting, None)
    if first is None:
        _require_fit(names, signatures, own, range(len(names)))
        raise CheckpointError(_WHERE, "a checkpoint of a graph with other branches", "declare the graph as FrEIA's was")
    if second is not None:
        number = next(n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b and saved[n])
        given = (
            f"module {number} of the checkpoint fits node {names[first[number]]!r} and node {names[second[number]]!r}"
        )
        advice = "FrEIA numbers branches by memory address: state the order of the nodes' names, order=[...] or --order"
        raise CheckpointError(_WHERE, given, advice)
    return first


def _require_fit(names: list[str], saved: Any, own: Any, places: Sequence[int]) -> None:
    for number, place in enumerate(places):
        if saved[number] != own[place]:
            differing = sorted(set(saved[number].items()) ^ set(own[place].items()))
            given = f"module {number} of the checkpoint for node {names[place]!r}, which differ in "
            given += ", ".join(f"{name} {shape}" for name, shape in differing[:4])
            raise CheckpointError(_WHERE, given, "the node needs the layer, the sizes and the subnets of FrEIA's")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert a file; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        graph = _graph(options.graph)
        state = _read(options.weights, options.key)
        convert(state, graph, options.order and options.order.split(","), prefix=options.prefix)
        save(options.native, graph, metadata={"converted from": Path(options.weights).name})
    except InvgraphError as error:
        print(error, file=sys.stderr)
        return 1
    tensors = sum(isinstance(value, Tensor) for value in graph.state_dict().values())
    print(f"{options.native}: {len(graph.layers)} layers, {tensors} tensors")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m invgraph.freia.convert", description=__doc__)
    parser.add_argument("weights", help="file that torch.save wrote: a state dict, or a dict that holds one")
    parser.add_argument("native", help="file to write, which invgraph.load reads")
    parser.add_argument(
        "--graph",
        required=True,
        metavar="MODULE:FUNCTION",
        help="function that builds the native graph, or a static method, MODULE:CLASS.METHOD",
    )
    parser.add_argument("--key", help="key of the state dict in the file, such as net")
    parser.add_argument("--prefix", help="start of the network's keys in the state dict, such as cinn.")
    parser.add_argument("--order", help="names of the nodes in the checkpoint's order, where branches fit in two ways")
    return parser


def _graph(target: str) -> Graph:
    name, _, function = target.partition(":")
    if not function:
        raise ArgumentError(
            _WHERE, f"--graph {target}", "expected MODULE:FUNCTION, such as my_model:build or my_model:Model.build"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules beside the caller, as for python -m
    try:
        build = operator.attrgetter(function)(importlib.import_module(name))
    except (ImportError, AttributeError) as error:
        raise ArgumentError(_WHERE, f"--graph {target}", f"{error}; the module is looked for here as well") from error
    graph = build()
    if not isinstance(graph, Graph):
        given = f"--graph {target}, which returned a {type(graph).__name__}"
        raise ArgumentError(_WHERE, given, "the function takes no arguments and returns an invgraph.Graph")
    return graph


def _read(path: str, key: str | None) -> Mapping[str, Any]:
    if not Path(path).is_file():
        raise CheckpointError(_WHERE, path, "no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        advice = "expected the state dict of a program, not its model: torch.save(model.state_dict(), path) there"
        given = f"{path}, which torch.load refuses: {type(error).__name__}"
        raise CheckpointError(_WHERE, given, advice) from error
    if key is not None:
        if not isinstance(state, Mapping) or key not in state:
            raise CheckpointError(_WHERE, f"--key {key}", f"the file holds {_listed(state)}")
        state = state[key]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(_WHERE, _listed(state), "expected a state dict: name the key that holds it, --key KEY")
    return state


def _listed(state: Any) -> str:
    return f"keys {', '.join(map(str, list(state)[:8]))}" if isinstance(state, Mapping) else type(state).__name__


if __name__ == "__main__":
    sys.exit(main())
