"""Orders in which FrEIA may have numbered the modules of a graph, and those that fit a checkpoint.

FrEIA walks back from the outputs. Where a node reads several others, it takes them in an order that follows from memory
addresses, and so differs from process to process. The numbers of the modules in a checkpoint follow that order.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from invgraph.errors import CheckpointError
from invgraph.graph.graph import Graph
from invgraph.shapes import Shape

Signature = Mapping[str, Shape]
"""Names and shapes of a module's tensors."""

Order = tuple[int, ...]
"""For each number in a checkpoint, the place of the module among the layers of the graph."""

PREFIX = "module_list."
"""Start of the keys of a network's modules."""

_NUMBERED = re.compile(rf"((?:.*?\.)?){re.escape(PREFIX)}\d")
_MOST_STEPS = 50_000


def prefixes(state: Mapping[str, Any]) -> list[str]:
    """Return what stands before the modules of each network in the keys of a state dict, such as ``"inn."``."""
    return list(dict.fromkeys(match.group(1) for key in state if (match := _NUMBERED.match(key))))


def renumber_keys(entries: MutableMapping[str, Any], start: str, order: Sequence[int]) -> None:
    """Give modules other numbers: ``order`` holds the new one of each.

    Arguments:
        entries: State dict, or its metadata.
        start: Start of the keys up to the number.
        order: For each number in the keys, the number that it becomes.
    """
    moved: dict[str, Any] = {}
    for key in [key for key in entries if key.startswith(start)]:
        number, dot, name = key.removeprefix(start).partition(".")
        moved[f"{start}{order[int(number)]}{dot}{name}"] = entries.pop(key)
    entries.update(moved)


def group(state: Mapping[str, Any], prefix: str, count: int) -> list[dict[str, Any]] | None:
    """Return the entries of each of ``count`` numbered modules; None if the numbers differ."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, value in state.items():
        if key.startswith(prefix):
            number, _, name = key.removeprefix(prefix).partition(".")
            if not number.isdecimal() or int(number) >= count:
                return None
            found[int(number)][name] = value
    return found


def shapes_of(entries: Mapping[str, Any]) -> Signature:
    """Return the shapes of the tensors among a module's entries."""
    return {name: tuple(value.shape) for name, value in entries.items() if isinstance(value, Tensor)}


def fitting_orders(
    graph: Graph, saved: Sequence[Signature], own: Sequence[Signature], *, partly: bool = True
) -> Iterator[Order]:
    """Yield the orders in which every saved module fits the module of the graph that it would be loaded into.

    Orders that differ only by modules of which nothing is saved count as one. Modules whose tensors are all there are
    looked for first; if there are none, a part of the tensors may be enough.

    Arguments:
        graph: Native graph.
        saved: Names and shapes of the tensors of each numbered module.
        own: Names and shapes of the tensors that each layer of the graph takes.
        partly: True if a part of a module's tensors is enough.

    Raises:
        CheckpointError: If the graph has more orders than can be tried.
    """
    found = False
    for whole in (True, False) if partly else (True,):
        seen: set[Order] = set()
        for order in _orders(graph, partial(_fits, saved, own, whole)):
            with_tensors = tuple(layer for number, layer in enumerate(order) if saved[number])
            if with_tensors not in seen:
                seen.add(with_tensors)
                found = True
                yield order
        if found:
            return


def _fits(saved: Sequence[Signature], own: Sequence[Signature], whole: bool, number: int, layer: int) -> bool:
    if whole:
        return saved[number] == own[layer]
    return all(own[layer].get(name) == shape for name, shape in saved[number].items())


def _orders(graph: Graph, fits: Callable[[int, int], bool]) -> Iterator[Order]:
    """Yield every order in which FrEIA may number the layers, as far as modules fit."""
    sources, readers = _edges(graph)
    count, steps = len(graph.layers), 0
    walks: list[Any] = [iter([(deque(_ends(graph)), readers, ())])]
    while walks:
        walk = next(walks[-1], None)
        if walk is None:
            walks.pop()
            continue
        waiting, left, taken = walk
        while waiting:
            steps += 1
            if steps > _MOST_STEPS:
                given = f"a graph of {count} modules with many branches"
                advice = "too many orders fit: load the checkpoint into FrEIA and save each module by the node's name"
                raise CheckpointError("GraphINN", given, advice)
            layer = waiting.popleft()
            if layer >= 0:
                if not fits(count - 1 - len(taken), layer):
                    break
                taken = (*taken, layer)
            for source in sources[layer]:
                left[source] -= 1
            ready = [source for source in sources[layer] if left[source] == 0]
            if len(ready) > 1:
                walks.append(_branches(waiting, left, taken, ready))
                break
            waiting.extend(ready)
        else:
            yield taken[::-1]


def _branches(waiting: deque[int], left: dict[int, int], taken: Order, ready: list[int]) -> Iterator[Any]:
    for chosen in itertools.permutations(ready):
        yield deque((*waiting, *chosen)), dict(left), taken


def _ends(graph: Graph) -> range:
    """Return the numbers of the graph's outputs: negative, to differ from layers."""
    return range(-1, -1 - len(graph.forward_schedule.ends), -1)


def _edges(graph: Graph) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return the layers that each layer and output reads, and how many read each layer."""
    schedule = graph.forward_schedule
    maker = {slot: step.layer for step in schedule.steps for slot in step.outputs}
    features = any(step.feature for step in schedule.steps)  # these are read as conditions alone
    sources: dict[int, list[int]] = {}
    for step in schedule.steps:
        read = (*step.inputs, *step.conditions) if features else step.inputs
        sources[step.layer] = list(dict.fromkeys(maker[slot] for slot in read if slot in maker))
    for end, slot in zip(_ends(graph), schedule.ends, strict=True):
        sources[end] = [maker[slot]] if slot in maker else []
    readers: dict[int, int] = dict.fromkeys(sources, 0)
    for read_layers in sources.values():
        for layer in read_layers:
            readers[layer] += 1
    return sources, readers
