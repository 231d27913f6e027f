"""A graph for data of other spatial sizes: the same layers, with shapes inferred anew."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from torch import nn

from invgraph.core.call import Ports
from invgraph.core.invertible import Invertible
from invgraph.core.resized import resized
from invgraph.errors import GraphError
from invgraph.graph.build_layer import feature_shapes
from invgraph.graph.layer_dict import ModuleDict
from invgraph.graph.schedule import Schedule, Step
from invgraph.graph.views import Shown
from invgraph.shapes import Shape, as_shape
from invgraph.torch_internals import replace_children

Shapes = tuple[Shape, ...]


class Resizable(Shown, ABC):
    """Base class of a graph, with what runs it at other sizes."""

    fixed_size_reason = None

    def at(self, /, **shapes: Sequence[int]) -> Self:
        """Return the graph for data of other spatial sizes, with the same parameters; all shapes are inferred again.

        Parameters, subnets and conditioning networks are shared, not copied: training, loading, casting or moving one
        graph changes the other. A checkpoint of either loads into the other. ``train()`` and ``eval()`` reach the
        layers of the one that they are called on, and the subnets of both: call them on the graph that is used.

        Arguments:
            shapes: The new shapes, without the batch, by the names of inputs and conditions; all others stay.

        Returns:
            The graph of these shapes, not compiled; the graph itself if nothing changes.

        Raises:
            GraphError: If a layer has a fixed size, such as a permutation of all elements of an image (the message says
                why), or there is no input or condition of a name.

        Example:
            >>> import torch, invgraph as ig
            >>> x = ig.InputNode(3, 16, 16, name="image")
            >>> args = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(hidden=8)}
            >>> graph = ig.Graph(x, ig.chain(x, ig.Haar, ig.Permute, (ig.Coupling, args)))
            >>> graph.at(image=(3, 32, 48))(torch.zeros(1, 3, 32, 48))[0].shape
            torch.Size([1, 12, 16, 24])
        """
        where = f"{self.label}.at"
        in_shapes, cond_shapes = named_shapes(where, self._inputs(), self._conditions(), shapes)
        try:
            return resized(self, in_shapes, cond_shapes)
        except GraphError as error:
            raise error.at(where) from error

    def _resize(self, before: tuple[Shape, ...]) -> None:
        schedules = self.forward_schedule, self.inverse_schedule
        layers, schedules = resize_graph(self.layers, schedules, self.in_shapes, self.cond_shapes)
        replace_children(self, {"layers": layers})
        self.forward_schedule, self.inverse_schedule = schedules


def named_shapes(
    where: str, inputs: Ports, conditions: Ports, given: Mapping[str, Sequence[int]]
) -> tuple[Shapes, Shapes]:
    """Return the shapes of inputs and conditions, where those given by name replace the others.

    Arguments:
        where: The call, for errors.
        inputs: The inputs of the graph.
        conditions: The conditions of the graph.
        given: New shapes, by the name of the input or condition.

    Raises:
        GraphError: If there is no such input or condition, or nothing is given.
    """
    names = (*inputs.names, *conditions.names)
    for name in given:
        if name not in names:
            raise GraphError(where, f"name {name!r}", f"no such input or condition; the graph has {', '.join(names)}")
    if not given:
        raise GraphError(where, "no shapes", f"name the shapes that change: at({names[0]}=(3, 512, 768))")
    chosen = {name: as_shape(shape, f"{where} ({name})") for name, shape in given.items()}
    first, second = (
        tuple(chosen.get(name, shape) for name, shape in zip(ports.names, ports.shapes, strict=True))
        for ports in (inputs, conditions)
    )
    return first, second


def resize_graph(
    layers: nn.ModuleDict, schedules: tuple[Schedule, Schedule], in_shapes: Shapes, cond_shapes: Shapes
) -> tuple[nn.ModuleDict, tuple[Schedule, Schedule]]:
    """Return the layers of a graph and its two schedules for other shapes of inputs and conditions.

    Raises:
        GraphError: If a layer can't follow; the message names its node.
    """
    forward, inverse = schedules
    shapes: dict[int, Shape] = dict(enumerate(cond_shapes))
    shapes.update(zip(forward.starts, in_shapes, strict=True))
    known: dict[int, Shape] = dict(enumerate(forward.conditions.shapes))
    known.update(zip(forward.starts, forward.source.shapes, strict=True))
    new: dict[str, nn.Module] = dict(layers)
    for step in forward.steps:
        name = forward.names[step.layer]
        layer, given = new[name], _gather(shapes, step.conditions)
        if isinstance(layer, Invertible):
            before = layer.cond_shapes
            known.update(zip(step.outputs, layer.out_shapes, strict=True))
        else:
            before = tuple(known.get(place, now) for place, now in zip(step.conditions, given, strict=True))
        with _named_condition(before, given):
            if isinstance(layer, Invertible):
                new[name] = layer = _follow(layer, _gather(shapes, step.inputs), given)
                made = layer.out_shapes
            else:
                made = feature_shapes(f"node {name!r} ({type(layer).__name__})", layer, given)
        shapes.update(zip(step.outputs, made, strict=True))
    source, target = (
        replace_shapes(ports, shapes, places)
        for ports, places in ((forward.source, forward.starts), (forward.target, forward.ends))
    )
    conditions = replace_shapes(forward.conditions, shapes, range(len(cond_shapes)))
    return ModuleDict(new), (
        replace(forward, source=source, target=target, conditions=conditions, steps=_steps(forward, shapes)),
        replace(inverse, source=target, target=source, conditions=conditions, steps=_steps(inverse, shapes)),
    )


def _steps(schedule: Schedule, shapes: Mapping[int, Shape]) -> tuple[Step, ...]:
    """Return the steps with the shapes that features now have."""
    return tuple(
        [step._replace(shapes=_gather(shapes, step.outputs)) if step.feature else step for step in schedule.steps]
    )


@contextmanager
def _named_condition(before: Shapes, now: Shapes) -> Iterator[None]:
    """Name the condition that has other channels or axes than before, if a node can't follow."""
    try:
        yield
    except GraphError as error:
        for old, new in zip(before, now, strict=True):
            if old[0] != new[0] or len(old) != len(new):
                advice = "its size can't change: only spatial sizes may change"
                advice += ", and a vector has none" if len(old) == 1 else ", not the number of channels or axes"
                raise GraphError(error.where, f"condition of shape {new} instead of {old}", advice) from error
        raise


def replace_shapes(ports: Ports, shapes: Mapping[int, Shape], places: Sequence[int]) -> Ports:
    """Return ports with the shapes of the values in these slots."""
    return Ports(ports.kind, _gather(shapes, places), ports.names, ports.bare)


def _gather(shapes: Mapping[int, Shape], places: Sequence[int]) -> Shapes:
    return tuple(shapes[place] for place in places)


def _follow(layer: Invertible, in_shapes: Shapes, cond_shapes: Shapes) -> Invertible:
    """Return a layer at other shapes; an error names its node, also if a layer within it is what can't follow."""
    try:
        return resized(layer, in_shapes, cond_shapes)
    except GraphError as error:
        if error.where.startswith(layer.label):
            raise
        raise error.at(layer.label) from error
