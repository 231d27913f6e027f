"""A graph under conditions of any batch shape, run on values of ``sample_shape + batch_shape + event_shape``."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from invgraph.core.call import Ports
from invgraph.core.ranges import Ends
from invgraph.distributions.dependencies import Dependencies, counts
from invgraph.errors import InputTypeError, ShapeError
from invgraph.shapes import Shape, Structured, Tensors
from invgraph.torch_internals import is_transformed

Result = tuple[Tensors, Tensor]

_LARGEST = 1 << 24
"""Number of elements of a model and its conditions up to which they are copied, to see whether they have changed."""


class Bound(Protocol):
    """A graph under fixed conditions: values with a leading axis of samples, in both directions."""

    def __call__(self, inputs: Structured) -> tuple[Any, Tensor]: ...

    def inverse(self, outputs: Structured) -> tuple[Any, Tensor]: ...


class Bijection(Protocol):
    """The parts of a graph that are used here; the graph itself stands on a higher level."""

    def __call__(self, inputs: Structured, conditions: Structured = ..., /) -> tuple[Any, Tensor]: ...

    def inverse(self, outputs: Structured, conditions: Structured = ..., /) -> tuple[Any, Tensor]: ...

    def bind(self, conditions: Structured, *, gradients: bool = ...) -> Bound: ...

    def _inputs(self) -> Ports: ...

    def _outputs(self) -> Ports: ...

    def _conditions(self) -> Ports: ...

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends: ...


class Conditioned:
    """A graph under conditions with any number of leading axes, of which there may be none.

    What depends on the conditions alone is computed once as long as no gradients are recorded and nothing that it
    depends on changes, for which a model of up to 16 million elements is copied. Where gradients are recorded, of
    larger models, and of networks that draw random numbers or hold objects that can't be compared, it is computed at
    each call, so that each result can be differentiated on its own, and has its own dropout.

    Arguments:
        where: Name of the caller in errors.
        graph: The graph.
        c: Conditions ``batch_shape + shape`` for each condition of the graph, whose batch shapes are broadcast.

    Attributes:
        batch_shape: Leading axes of the conditions, broadcast against each other.
    """

    def __init__(self, where: str, graph: Bijection, c: Structured) -> None:
        self.where, self.graph = where, graph
        ports = graph._conditions()
        ports.require_given(where, c, f"{where}({{c}})")
        values: tuple[object, ...] = (c,) if ports.bare else tuple(c) if isinstance(c, (tuple, list)) else (c,)
        if len(values) == len(ports.shapes) and all(map(_is_dense, values)):
            self.batch_shape, self._values = _broadcast(ports, where, values)  # type: ignore[arg-type]
            ports.unpack(where, ports.pack(self.rows))
        else:
            self.batch_shape, self._values = torch.Size(), ports.unpack(where, c)
        self._kept: tuple[tuple[object, ...], Tensors, Bound] | None = None

    @property
    def rows(self) -> Tensors:
        """Conditions with the batch in one axis, as they are now: several axes that are broadcast have to be copied."""
        shapes = self.graph._conditions().shapes
        rows = math.prod(self.batch_shape)
        return tuple(value.reshape(rows, *shape) for value, shape in zip(self._values, shapes, strict=True))

    def of(self, graph: Bijection) -> Conditioned:
        """Return a graph, this one or another, under the same conditions."""
        return self if graph is self.graph else Conditioned(self.where, graph, self._packed(self.batch_shape))

    def expand(self, batch_shape: torch.Size) -> Conditioned:
        """Return the same graph with conditions that are repeated to fill a batch shape."""
        return Conditioned(self.where, self.graph, self._packed(batch_shape))

    def _packed(self, batch_shape: torch.Size) -> Structured:
        ports = self.graph._conditions()
        return ports.pack(
            tuple(v.expand(*batch_shape, *shape) for v, shape in zip(self._values, ports.shapes, strict=True))
        )

    def forward(self, values: Tensors) -> Result:
        """Return outputs and log-determinants for inputs of ``samples + batch_shape + event_shape``."""
        return self._run(values, self.graph._inputs(), self.graph._outputs(), inverse=False)

    def inverse(self, values: Tensors) -> Result:
        """Return inputs and log-determinants of the inverse for outputs of ``samples + batch_shape + event_shape``."""
        return self._run(values, self.graph._outputs(), self.graph._inputs(), inverse=True)

    def _run(self, values: Tensors, source: Ports, target: Ports, inverse: bool) -> Result:
        ahead = values[0].shape[: values[0].ndim - len(source.shapes[0])]
        own = ahead[len(ahead) - len(self.batch_shape) :]
        if own != self.batch_shape:  # an axis of size 1 among the conditions, and several values along it
            return self.expand(own)._run(values, source, target, inverse)
        samples, rows = math.prod(ahead[: len(ahead) - len(self.batch_shape)]), math.prod(self.batch_shape)
        axes = (samples, rows) if self._values else (math.prod(ahead),)
        flat = source.pack(tuple(v.reshape(*axes, *s) for v, s in zip(values, source.shapes, strict=True)))
        if self._values:
            bound = self._bound()
            result, log_det = bound.inverse(flat) if inverse else bound(flat)
        else:
            result, log_det = self.graph.inverse(flat) if inverse else self.graph(flat)
        outputs: Tensors = (result,) if target.bare else result
        return tuple(
            y.reshape(*ahead, *shape) for y, shape in zip(outputs, target.shapes, strict=True)
        ), log_det.reshape(ahead)

    def _bound(self) -> Bound:
        ports = self.graph._conditions()
        if torch.is_grad_enabled():
            return self.graph.bind(ports.pack(self.rows), gradients=True)
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or is_transformed():
            return self.graph.bind(ports.pack(self.rows))
        found = self._dependencies()
        tensors = (*found.tensors, *self._values)
        if sum(tensor.numel() for tensor in tensors) > _LARGEST:
            return self.graph.bind(ports.pack(self.rows))
        # Values are compared as well: a change through .data, or through an array that shares memory, is not counted.
        state, values = self._state(found), _flat(tensors)
        if self._kept is None or self._kept[0] != state or not all(map(torch.equal, self._kept[1], values)):
            before = _random_state(self._values)
            bound = self.graph.bind(ports.pack(self.rows))
            is_fixed = all(map(torch.equal, before, _random_state(self._values)))
            self._kept = (state, values, bound) if is_fixed else None  # dropout is drawn anew at each call
            return bound
        return self._kept[2]

    def _dependencies(self) -> Dependencies:
        assert isinstance(self.graph, nn.Module)
        return Dependencies(self.graph)

    def state(self) -> tuple[object, ...]:
        """Return what results depend on, to be compared later: tensors, modules, their settings, hooks and patches.

        A change in place is seen by its count. Inside a ``torch.func`` transform nothing tells one tensor from another
        later on: no two states are equal.
        """
        return (object(),) if is_transformed() else self._state(self._dependencies())

    def _state(self, found: Dependencies) -> tuple[object, ...]:
        device = self._values[0].device.type if self._values else "cpu"
        mixed = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        return (torch.is_grad_enabled(), mixed, *found.state, *counts((*found.tensors, *self._values)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def _random_state(like: Tensors) -> Tensors:
    """Return the states of the global generators that a network on the device of these tensors may draw from."""
    devices = {tensor.device for tensor in like if tensor.is_cuda}
    return (torch.get_rng_state(), *[torch.cuda.get_rng_state(device) for device in devices])


def _flat(tensors: Tensors) -> Tensors:
    """Return a copy of all values, one tensor for each dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach().reshape(-1))
    return tuple([torch.cat(parts) for parts in kinds.values()])


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_nested


def _broadcast(ports: Ports, where: str, values: Tensors) -> tuple[torch.Size, Tensors]:
    """Return the common batch shape of conditions, and views of them with that batch."""
    ahead = [value.shape[: max(value.ndim - len(s), 0)] for value, s in zip(values, ports.shapes, strict=True)]
    try:
        batch_shape = torch.broadcast_shapes(*ahead)
    except RuntimeError as error:
        given = f"conditions of batch shapes {', '.join(str(tuple(shape)) for shape in ahead)}"
        raise ShapeError(where, given, "the batch shapes of the conditions can't be broadcast together") from error
    wide = []
    for value, shape, own in zip(values, ports.shapes, ahead, strict=True):
        if value.shape[len(own) :] != shape:
            ports.unpack(where, values[0] if ports.bare else values)  # raises
        wide.append(value.expand(*batch_shape, *shape))
    return batch_shape, tuple(wide)


def broadcast_value(where: str, value: object, event_shape: Shape, batch_shape: torch.Size) -> Tensor:
    """Return a value broadcast to ``sample_shape + batch_shape + event_shape``.

    Raises:
        InputTypeError: If it is not a dense tensor of floating-point numbers.
        ShapeError: If its shape does not fit.
    """
    expected = f"expected sample_shape + {(*batch_shape, *event_shape)}: batch_shape {tuple(batch_shape)}"
    expected += f" and event_shape {tuple(event_shape)}"
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise InputTypeError(where, given, "expected a tensor of floating-point numbers")
    if not _is_dense(value):
        given = "a nested tensor" if value.is_nested else f"a tensor of layout {value.layout}"
        raise InputTypeError(where, given, "expected a dense (strided) tensor")
    ahead = value.shape[: max(value.ndim - len(event_shape), 0)]
    try:
        full = torch.broadcast_shapes(ahead, batch_shape)
    except RuntimeError:
        full = None
    if full is None or value.shape[len(ahead) :] != event_shape:
        raise ShapeError(where, f"a value of shape {tuple(value.shape)}", expected)
    return value.expand(*full, *event_shape)
