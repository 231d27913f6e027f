"""Picture of a graph's forward schedule: a box for each node, and equal blocks as one box with their number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.core.wrappers import Inverse
from invgraph.draw.boxes import Arrow, ArrowKind, Box, BoxKind, Picture
from invgraph.graph.fold import Item, Maker, Run, runs
from invgraph.graph.schedule import Schedule
from invgraph.graph.summary import count_parameters
from invgraph.shapes import Shape
from invgraph.transforms.transform import Transform


def size(shape: Shape) -> str:
    """Return a shape as it stands in pictures: ``3×8×8``."""
    return "×".join(map(str, shape))


def kind_of(layer: nn.Module) -> str:
    """Return class and transform of a layer: ``Coupling · Affine``."""
    name = type(layer).__name__
    if isinstance(layer, Inverse):
        return f"Inverse of {kind_of(layer.module)}"
    if _is_graph(layer):
        count = len(layer.layers)  # type: ignore[arg-type]
        return f"Graph · {count} node{'' if count == 1 else 's'}"
    transform = getattr(layer, "transform", None)
    return f"{name} · {type(transform).__name__}" if isinstance(transform, Transform) else name


def _structure(layer: nn.Module) -> Iterator[str]:
    """Yield all that ``repr`` shows of a layer and its parts, and the shapes of their parameters."""
    for part in layer.modules():
        yield f"{type(part).__qualname__}({part.extra_repr()})"
        yield from (f"{name} {tuple(tensor.shape)}" for name, tensor in part.named_parameters(recurse=False))
        if _is_graph(part):
            schedule: Any = part.forward_schedule
            yield str(schedule.steps)


def _is_graph(layer: Any) -> bool:
    return isinstance(getattr(layer, "forward_schedule", None), Schedule)


class Sketch:
    """The boxes and arrows of a graph.

    Arguments:
        layers: Layers of the graph.
        schedule: Its forward schedule.
        fold: True to draw equal blocks that follow each other once.
    """

    def __init__(self, layers: nn.ModuleDict, schedule: Schedule, fold: bool) -> None:
        self.schedule = schedule
        self.layers = list(layers.values())
        self.starts: list[Box] = []
        self.makers: dict[int, Maker] = {}
        self.shapes: dict[Maker, Shape] = {}
        self.kinds: dict[int, ArrowKind] = {}
        slots = (*schedule.starts, *range(len(schedule.conditions.names)))
        for ports in (schedule.source, schedule.conditions):
            for name, shape in zip(ports.names, ports.shapes, strict=True):
                maker = (-1 - len(self.starts), 0)
                kind: BoxKind = "input" if ports.kind == "input" else "condition"
                self.makers[slots[len(self.starts)]] = maker
                self.shapes[maker] = shape
                self.starts.append(Box(kind, name, f"{ports.kind} {size(shape)}", f"{ports.kind} {name!r} {shape}"))
        self.items = [self._item(place) for place in range(len(schedule.steps))]
        ends = [self.makers[slot] for slot in schedule.ends]
        self.runs = runs(self.items, set(ends)) if fold else []
        self.ends = ends

    def _item(self, place: int) -> Item:
        step = self.schedule.steps[place]
        layer = self.layers[step.layer]
        self.kinds[place] = "feature" if step.feature else "condition"
        shapes = layer.out_shapes if isinstance(layer, Invertible) else ()
        for number, slot in enumerate(step.outputs):
            self.makers[slot] = (place, number)
            if isinstance(layer, Invertible):
                self.shapes[place, number] = layer.out_shapes[number]
        read, given = (tuple(self.makers[slot] for slot in side) for side in (step.inputs, step.conditions))
        if isinstance(layer, Invertible):
            shapes = (*layer.in_shapes, *layer.cond_shapes, *shapes)
            for maker, shape in zip(given, layer.cond_shapes, strict=True):
                self.shapes.setdefault(maker, shape)  # nobody else knows the shapes of features
        return Item((kind_of(layer), *map(size, shapes)), read, given)

    def picture(self) -> Picture:
        """Return the whole picture."""
        boxes = list(self.starts)
        places: dict[int, int] = {-1 - k: k for k in range(len(boxes))}
        folded: dict[int, tuple[int, Run]] = {}
        lone: list[int] = []
        place = 0
        for run in [*self.runs, Run(len(self.items), 1, 1)]:
            for step in range(place, run.start):
                places[step] = len(boxes)
                boxes.append(self._box([step]))
                lone.append(step)
            place = run.end
            if run.start < len(self.items):
                folded.update((step, (len(boxes), run)) for step in range(run.start, run.end))
                boxes.append(self._block(run))
        arrows: list[Arrow] = []
        for step in lone:
            arrows += self._arrows(step, lambda maker: self._tail(maker, places, folded), (places[step], 0))
        for run in self.runs:
            arrows += [Arrow(self._tail(maker, places, folded), (folded[run.start][0], number), kind, label)
                       for number, (maker, kind, label) in enumerate(self._entries(run))]  # fmt: skip
        for number, (maker, shape) in enumerate(zip(self.ends, self.schedule.target.shapes, strict=True)):
            name = "output" if len(self.ends) == 1 else f"output {number}"
            arrows.append(Arrow(self._tail(maker, places, folded), (len(boxes), 0), "data", size(shape)))
            boxes.append(Box("output", name, size(shape), f"{name}: {self.schedule.target.names[number]} {shape}"))
        return Picture(tuple(boxes), tuple(arrows))

    def _tail(self, maker: Maker, places: dict[int, int], folded: dict[int, tuple[int, Run]]) -> tuple[int, int]:
        if maker[0] not in folded:
            return places[maker[0]], maker[1]
        place, run = folded[maker[0]]
        return place, self._exits(run).index((maker[0] - run.end + run.period + run.start, maker[1]))

    def _box(self, steps: list[int]) -> Box:
        """Return the box of a step; of several, if they are the same one of each block of a run."""
        step = self.schedule.steps[steps[0]]
        layer = self.layers[step.layer]
        names = [self.schedule.names[self.schedule.steps[one].layer] for one in steps]
        count = count_parameters(*(self.layers[self.schedule.steps[one].layer] for one in steps))
        kind: BoxKind = "feature" if step.feature else "layer" if count else "fixed"
        if _is_graph(layer):
            kind = "graph"
        tip = f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}: {kind_of(layer)}"
        if isinstance(layer, Invertible):
            tip += f", {' + '.join(map(size, layer.in_shapes))} → {' + '.join(map(size, layer.out_shapes))}"
        if count:
            tip += f", {count:,} parameters{' in all' if len(steps) > 1 else ''}"
        shape = self._label((steps[0], 0)) if step.feature and len(step.outputs) == 1 else ""
        return Box(kind, merge_names(names), f"{kind_of(layer)} → {shape}" if shape else kind_of(layer), tip)

    def _block(self, run: Run) -> Box:
        boxes = tuple(
            self._box([run.start + offset + block * run.period for block in range(run.times)])
            for offset in range(run.period)
        )
        inner = {run.start + offset: offset for offset in range(run.period)}
        entries = [(maker, kind) for maker, kind, _ in self._entries(run)]
        arrows: list[Arrow] = []
        come: list[Arrow] = []
        for step in inner:
            for arrow, maker in self._read(step):
                head = (inner[step], arrow.head[1])
                if maker[0] in inner:
                    arrows.append(Arrow((inner[maker[0]], maker[1]), head, arrow.kind, arrow.label))
                else:
                    come.append(Arrow((-1, entries.index((maker, arrow.kind))), head, arrow.kind))
        leave = tuple(
            Arrow((inner[place], port), (-1, number), "data", self._label((place, port)))
            for number, (place, port) in enumerate(self._exits(run))
        )
        picture = Picture(boxes, tuple(arrows), tuple(come), leave)
        layers = [self.layers[step.layer] for step in self.schedule.steps[run.start : run.end]]
        looks = [[*_structure(layer)] for layer in layers]
        equal = all(look == before for before, look in zip(looks, looks[run.period :], strict=False))
        tip = f"{run.times} {'equal ' if equal else ''}blocks, one after the other"
        tip += "" if equal else ", which differ in settings or sizes of their layers"
        return Box("repeat", f"{run.times} ×", "", tip, picture, run.times)

    def _read(self, step: int) -> list[tuple[Arrow, Maker]]:
        """Return what a step reads: an arrow whose tail is left open, and the maker of the value."""
        item = self.items[step]
        found: list[tuple[Arrow, Maker]] = []
        for number, maker in enumerate(item.reads):
            found.append((Arrow((-1, 0), (step, number), "data", self._label(maker)), maker))
        for number, maker in enumerate(item.given, len(item.reads)):
            kind = self.kinds.get(maker[0], "condition")
            found.append((Arrow((-1, 0), (step, number), kind), maker))
        return found

    def _arrows(self, step: int, tail: Any, head: tuple[int, int]) -> list[Arrow]:
        return [
            Arrow(tail(maker), (head[0], arrow.head[1]), arrow.kind, arrow.label) for arrow, maker in self._read(step)
        ]

    def _label(self, maker: Maker) -> str:
        return size(self.shapes[maker]) if maker in self.shapes else ""

    def _entries(self, run: Run) -> list[tuple[Maker, ArrowKind, str]]:
        """Return what enters the first block of a run from outside, transformed values first."""
        found: dict[tuple[Maker, ArrowKind], str] = {}
        for step in range(run.start, run.start + run.period):
            for arrow, maker in self._read(step):
                if maker[0] < run.start:
                    found[maker, arrow.kind] = arrow.label
        ordered = sorted(found.items(), key=lambda pair: pair[0][1] != "data")
        return [(maker, kind, label) for (maker, kind), label in ordered]

    def _exits(self, run: Run) -> list[Maker]:
        """Return what leaves the last block of a run, named by the steps of the first."""
        last, shift = run.end - run.period, run.end - run.period - run.start
        read = [maker for item in self.items[run.end :] for maker in (*item.reads, *item.given)]
        made = sorted({maker for maker in (*read, *self.ends) if last <= maker[0] < run.end})
        return [(place - shift, port) for place, port in made]


def _are_consecutive(numbers: list[str]) -> bool:
    return [int(number) - int(numbers[0]) for number in numbers] == list(range(len(numbers)))


def _some(numbers: list[str]) -> str:
    """Return numbers with gaps between them: other nodes may have those that a dash would include."""
    shown = numbers if len(numbers) <= 3 else [*numbers[:2], "…", numbers[-1]]
    return ", ".join(shown)


def merge_names(names: list[str]) -> str:
    """Return one name for the nodes of a run: ``coupling_0–23``, or ``coupling_0, 2, …, 46``."""
    if len(names) == 1:
        return names[0]
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(part) for part in parts}) == 1:
        differing = [k for k, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
        if len(differing) == 1 and all(part[differing[0]].isdigit() for part in parts):
            numbers = [part[differing[0]] for part in parts]
            merged = f"{numbers[0]}–{numbers[-1]}" if _are_consecutive(numbers) else _some(numbers)
            return "".join([*parts[0][: differing[0]], merged, *parts[0][differing[0] + 1 :]])
    return f"{names[0]} … {names[-1]}"
