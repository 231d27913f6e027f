"""The interpreter: one loop over the steps of a schedule, which every runner calls."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.call import CheckedTensors, TwoWay, call_checked, check_result
from invgraph.core.invertible import Result
from invgraph.errors import GraphError, InputTypeError, ShapeError
from invgraph.graph.schedule import Schedule, Step
from invgraph.shapes import Shape, Tensors, batched
from invgraph.torch_internals import compile_region, exported_module, floating_tensor, has_hooks, is_untouched, is_view

_KEPT = 32
"""Number of log-determinants that are kept until they are summed."""

_forward = TwoWay.forward  # to notice patches

Slots = list[Tensor | None]
Observer = Callable[[Step, Any, Slots, Tensor | None], None]
"""Called with a step, its layer, the slots, and its log-determinant: None before the step, and for a feature."""


def run(
    schedule: Schedule,
    layers: Sequence[nn.Module],
    slots: Slots,
    *,
    given: Mapping[int, Any] | None = None,
    before: Observer | None = None,
    after: Observer | None = None,
) -> Result:
    """Run the steps of a schedule, and return its values and the log-determinant.

    Arguments:
        schedule: The direction.
        layers: The layers of the graph, in order.
        slots: The values so far, from :func:`fill`; changed.
        given: What layers computed from their conditions beforehand, by the place of the layer.
        before: Called before each step.
        after: Called after each step, when its outputs are in their slots and idle ones are not yet empty.
    """
    data = slots[schedule.starts[0]]
    assert data is not None
    log_dets: list[Tensor] = []
    for step in schedule.steps:
        layer = layers[step.layer]
        if before is not None:
            before(step, layer, slots, None)
        if given and step.layer in given:
            cs = given[step.layer]
        else:
            cs = gather(slots, step.conditions) if step.conditions else ()
        more: Tensor | None = None
        if step.feature:
            outputs = call_feature(layer, cs, data.dtype)
            if step.shapes and not torch.compiler.is_compiling():
                _require_features(schedule.names[step.layer], layer, outputs, step.shapes)
        else:
            outputs, more = call_layer(layer, gather(slots, step.inputs), cs, schedule.inverse)
            log_dets.append(more)
            if len(log_dets) == _KEPT:
                log_dets = [_total(log_dets, data)]
        for slot, output in zip(step.outputs, outputs, strict=True):
            slots[slot] = output
        if after is not None:
            after(step, layer, slots, more)
        for slot in step.idle:
            slots[slot] = None
    return gather(slots, schedule.ends), _total(log_dets, data)


def _total(log_dets: list[Tensor], data: Tensor) -> Tensor:
    """Return the sum of log-determinants in a tensor of its own: a layer's may be a part of what the layer keeps."""
    if not log_dets:
        return data.new_zeros(data.shape[0])
    if torch.compiler.is_compiling():  # which makes one loop of them
        return functools.reduce(torch.add, log_dets, data.new_zeros(data.shape[0]))
    return torch.stack(log_dets).sum(0)  # autograd records one sum of many terms more quickly than many of two


def fill(schedule: Schedule, values: Tensors, conditions: Tensors) -> Slots:
    """Return the slots at the start of a run: conditions in the first ones, values where the schedule starts."""
    slots: Slots = [None] * schedule.slots
    slots[: len(conditions)] = conditions
    for slot, value in zip(schedule.starts, values, strict=True):
        slots[slot] = value
    return slots


def gather(slots: Slots, places: tuple[int, ...]) -> Tensors:
    """Return the values of some slots."""
    if len(places) == 1:
        return (slots[places[0]],)  # type: ignore[return-value]  # a schedule fills a slot before it is read
    return tuple([slots[place] for place in places]) if places else ()  # type: ignore[misc]


def call_feature(network: nn.Module, cs: Tensors, dtype: torch.dtype) -> Tensors:
    """Call a conditioning network, and return its features in the data's dtype (under autocast they come in half)."""
    result = network(*cs)
    several = result if isinstance(result, (tuple, list)) else (result,)
    return tuple([feature.to(dtype) for feature in several])


def _require_features(name: str, network: nn.Module, features: Tensors, shapes: tuple[Shape, ...]) -> None:
    """Refuse features of other shapes than those that the nodes which read them were built for."""
    found = tuple([feature.shape[1:] if feature.ndim else None for feature in features])
    if found != shapes:
        given = f"returned features of shapes {', '.join(str(tuple(feature.shape)) for feature in features)}"
        advice = f"declared {', '.join(map(batched, shapes))}: keep the batch axis (squeeze drops one of size 1)"
        raise ShapeError(f"node {name!r} ({type(network).__name__})", given, f"{advice}, and all other sizes")


def call_layer(layer: Any, xs: Tensors, given: Any, inverse: bool) -> Result:
    """Call a layer with values that are checked already; what it returns is checked here.

    Arguments:
        layer: The layer.
        xs: The values.
        given: The conditions, or what the layer computed from them beforehand.
        inverse: True for the layer's inverse.
    """
    if torch.compiler.is_compiling():
        return _trace_layer(layer, xs, given, inverse)
    own = floating_tensor(layer)
    if own is not None and (own.dtype != xs[0].dtype or own.device != xs[0].device):  # cast or moved on its own
        given = f"its tensors are {own.dtype} on {own.device}, its values {xs[0].dtype} on {xs[0].device}"
        raise InputTypeError(layer.label, given, "a graph has one dtype and device: call .to(...) on the whole graph")
    if is_untouched(layer, _forward) and not (inverse and _has_own_inverse(layer)):  # a module's call takes longer
        ys, log_det = (layer._inverse if inverse else layer._forward)(xs, given)
    else:
        ys, log_det = layer.inverse(CheckedTensors(xs), given) if inverse else layer(CheckedTensors(xs), given)
    kind, shapes = ("input", layer.in_shapes) if inverse else ("output", layer.out_shapes)
    check_result(layer.label, kind, shapes, ys, log_det, xs[0])
    return ys, log_det


def _has_own_inverse(layer: Any) -> bool:
    return layer._compiled_inverse_impl is not None or "inverse" in vars(layer)


class Regions(threading.local):
    """The way a graph is traced; ``compiled.py`` sets it.

    Attributes:
        wanted: True if equal layers share compiled code.
        hooks: The numbers of the hooks on the graph's modules. The compiler itself does not look for new ones; reading
            this makes it trace again when they change.

    A region keeps views of its arguments for the backward pass, and inductor (torch 2.13) reuses that memory by
    default. Only ``Graph.compile`` turns that off, so a graph that is compiled from outside is traced without regions.
    """

    wanted = False
    hooks = ""


regions = Regions()


def _trace_layer(layer: Any, xs: Tensors, given: Any, inverse: bool) -> Result:
    """Trace a layer without its checks, which would be a good part of what there is to trace."""
    exporting = torch.compiler.is_exporting()
    if exporting:
        require_exportable(layer.label)
    if not regions.hooks and regions.wanted and layer.compile_as_region and not exporting and type(given) is tuple:
        *ys, log_det = _region(layer, inverse, len(xs), *xs, *given)
        return tuple(ys), log_det
    ys, log_det = _direction(layer, xs, given, inverse)
    if regions.wanted and not exporting:
        # A region takes no two views of one tensor, such as the parts of a split.
        ys = tuple(y.clone() if is_view(y) else y for y in ys)
    return tuple(ys), log_det


def require_exportable(where: str) -> None:
    """Refuse a module under ``torch.export`` that holds a graph, or any other tensors, as ``self.graph``.

    Torch itself would fail later: each module that its tools make has an attribute of this name.
    """
    module = exported_module()
    child = None if module is None else dict(module.named_children()).get("graph")
    if child is not None and next(itertools.chain(child.parameters(), child.buffers()), None) is not None:
        given = f"torch.export of {type(module).__name__}, which holds {type(child).__name__} as self.graph"
        advice = "torch's tools have an attribute graph of their own: call it self.flow, for instance, or use ig.export"
        raise GraphError(where, given, advice)


def _direction(layer: Any, xs: Tensors, given: Any, inverse: bool) -> Result:
    if has_hooks(layer):
        return call_checked(layer, xs, given, inverse=inverse)
    return (layer._inverse if inverse else layer._forward)(xs, given)  # type: ignore[no-any-return]


def _flat(layer: Any, inverse: bool, inputs: int, *tensors: Tensor) -> Tensors:
    """Return a layer's outputs and log-determinant in one tuple; inputs and conditions come in one tuple as well.

    Torch traces nested results again each time, and takes long to look into tuples of arguments.
    """
    ys, log_det = _direction(layer, tensors[:inputs], tensors[inputs:], inverse)
    return *ys, log_det


_region = compile_region(_flat)
