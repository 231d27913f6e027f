"""Shapes, which never include the batch, and checks of the tensors of a call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from invgraph.arguments import is_int
from invgraph.errors import ArgumentError, GraphError, InputTypeError, ShapeError

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = tuple[Tensor, ...]
Structured: TypeAlias = Tensor | Sequence[Tensor]
"""A tensor if one value was declared, a tuple of tensors if several were."""


def as_shape(sizes: Sequence[object], where: str) -> Shape:
    """Return the sizes as a tuple of ints.

    Raises:
        ArgumentError: If a size is not an int.
        GraphError: If there are no sizes, or one is not positive.
    """
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise ArgumentError(where, f"sizes: {type(sizes).__name__}", "expected a tuple of ints, such as (3, 8, 8)")
    given = f"sizes {tuple(sizes)}"
    if len(sizes) == 0:
        raise GraphError(where, given, "a shape has at least one size, without the batch: write (4,) for vectors of 4")
    shape: list[int] = []
    for size in sizes:
        if not is_int(size):
            kind = type(size).__name__
            raise ArgumentError(where, given, f"a size must be an int, not a {kind}")
        if size <= 0:
            raise GraphError(where, given, f"sizes must be positive, got {size}; do not include the batch")
        shape.append(int(size))
    return tuple(shape)


def as_shapes(shapes: object, where: str) -> tuple[Shape, ...]:
    """Return a tuple of shapes; a single shape such as ``(3, 8, 8)`` becomes a tuple of one."""
    if not isinstance(shapes, Sequence) or isinstance(shapes, str):
        raise ArgumentError(where, repr(shapes), "expected a tuple of tuples of ints, such as ((3, 8, 8),)")
    if any(is_int(entry) for entry in shapes):
        return (as_shape(shapes, where),)
    for entry in shapes:
        if not isinstance(entry, Sequence) or isinstance(entry, str):
            raise ArgumentError(where, repr(shapes), "expected a tuple of tuples of ints, such as ((3, 8, 8),)")
    return tuple(as_shape(entry, where) for entry in shapes)


def numel(shapes: Sequence[Shape]) -> int:
    """Total number of elements of values of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def batched(shape: Shape) -> str:
    """Format a shape with its batch axis for messages: ``(B, 3, 8, 8)``."""
    return f"(B, {', '.join(map(str, shape))})"


_AXIS_NAMES = {2: ("length",), 3: ("height", "width"), 4: ("depth", "height", "width")}


def require_divisible(shape: Shape, factor: int, where: str) -> None:
    """Raise GraphError unless every spatial size is divisible by the factor."""
    given = f"input of shape {shape}"
    if len(shape) not in _AXIS_NAMES:
        raise GraphError(where, given, "expected a signal (C, L), an image (C, H, W) or a volume (C, D, H, W)")
    for name, size in zip(_AXIS_NAMES[len(shape)], shape[1:], strict=True):
        if size % factor:
            problem = "odd" if factor == 2 else f"not divisible by {factor}"
            raise GraphError(where, given, f"{name} {size} is {problem}: crop or pad the data first")


def floating_tensor(module: nn.Module) -> Tensor | None:
    """Return a floating-point parameter or buffer that represents the dtype and device of a module, or None."""
    # Called on every call of every layer: module.parameters() would cost more than a small layer itself.
    for parameter in module._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    for child in module._modules.values():
        found = None if child is None else floating_tensor(child)
        if found is not None:
            return found
    for buffer in module._buffers.values():
        if buffer is not None and buffer.is_floating_point():
            return buffer
    return None


def repeat_rows(c: Tensor, batch: int | torch.SymInt) -> Tensor:
    """Repeat conditions for a batch with several samples of each; a single row is expanded without a copy."""
    if c.shape[0] == batch or c.shape[0] == 1:
        return c.expand(batch, *c.shape[1:])
    return c.expand(batch // c.shape[0], *c.shape).flatten(0, 1)


class Checked(tuple[Tensor, ...]):
    """Tensors that a graph has checked, and hands from layer to layer: a layer need not check them again."""

    __slots__ = ()


class Ports(NamedTuple):
    """The declared values at one side of a module: what a call is checked against.

    ``single`` says that one value was declared alone, so that it is passed as a tensor, not as a tuple.
    """

    kind: str
    shapes: tuple[Shape, ...]
    names: tuple[str, ...] = ()
    single: bool = False

    def label(self, index: int) -> str:
        """What an error calls the value: its name, or its place."""
        return f"{self.kind} '{self.names[index]}'" if self.names else f"{self.kind} {index}"

    def named(self, kind: str) -> Ports:
        """The same values as another side of a module."""
        return Ports(kind, self.shapes, self.names, self.single)  # torch 2.8 can't compile _replace

    def unpack(self, where: str, values: object) -> Tensors:
        """The tensors of a call, as a tuple, each one checked on its own."""
        if self.single:
            values = (values,)
        if not isinstance(values, (tuple, list)):
            wanted = f"no {self.kind}s"
            if self.shapes:
                count = f"{len(self.shapes)} tensors" if len(self.shapes) > 1 else "1 tensor: (x,) for a tensor x"
                wanted = f"a tuple of {count}"
            raise InputTypeError(where, f"{self.kind}s: {type(values).__name__}", f"expected {wanted}")
        if len(values) != len(self.shapes):
            names = ", ".join(self.label(i) for i in range(len(self.shapes))) or "none"
            few = "missing" if len(values) < len(self.shapes) else "surplus"
            raise ShapeError(
                where, f"{len(values)} {self.kind}s", f"expected {len(self.shapes)} ({names}): {few} {self.kind}"
            )
        for index in range(len(values)):  # torch.compile traces enumerate and zip far more slowly
            value = values[index]
            if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_nested:
                raise self._not_dense(where, index, value)
            if value.shape[1:] != self.shapes[index] or value.ndim == 0:
                raise self._misshapen(where, index, value)
            if not value.is_floating_point():
                raise self._not_floating(where, index, value)
        return tuple(values)

    def pack(self, values: Tensors) -> Tensor | Tensors:
        """The values in the structure they were declared with."""
        return values[0] if self.single else values

    def _not_dense(self, where: str, index: int, value: object) -> InputTypeError:
        if not isinstance(value, Tensor):
            given, advice = type(value).__name__, "expected a torch.Tensor"
            if isinstance(value, (tuple, list)) and self.single:
                advice += f": the {self.kind} was declared alone, pass the tensor itself"
            elif type(value).__module__ == "numpy":
                advice += ": convert it with torch.from_numpy"
        else:
            given = "a nested tensor" if value.is_nested else f"a tensor of layout {value.layout}"
            advice = "expected a dense (strided) tensor"
        return InputTypeError(where, f"{self.label(index)}: {given}", advice)

    def _misshapen(self, where: str, index: int, value: Tensor) -> ShapeError:
        expected = f"expected {batched(self.shapes[index])}, got {tuple(value.shape)}"
        advice = "did you forget the batch dimension?" if value.shape == self.shapes[index] else "wrong shape"
        if value.ndim != len(self.shapes[index]) + 1 and value.shape != self.shapes[index]:
            advice = f"wrong number of dimensions: {value.ndim} instead of {len(self.shapes[index]) + 1}"
        return ShapeError(where, f"{self.label(index)}: {expected}", advice)

    def _not_floating(self, where: str, index: int, value: Tensor) -> InputTypeError:
        advice = "expected a real floating-point tensor: convert it with .float()"
        if self.kind == "condition":
            advice += "; class labels with torch.nn.functional.one_hot(labels, classes).float()"
        return InputTypeError(where, f"{self.label(index)}: {value.dtype}", advice)


def check_together(
    where: str, sides: Sequence[tuple[Ports, Tensors]], reference: Tensor | None
) -> tuple[int | torch.SymInt, torch.dtype]:
    """Batch size and dtype of a call whose tensors must agree in batch, dtype and device.

    Arguments:
        where: the module, for the error.
        sides: the ports of data and of conditions, each with its (unpacked) tensors.
        reference: a tensor of the module, whose dtype and device the data must have; None for a module without.
    """
    first: Tensor | None = None
    for ports, values in sides:
        for index in range(len(values)):
            value = values[index]
            if first is None:
                first, its = value, ports
                if reference is None:
                    reference = value
            elif value.shape[0] != first.shape[0]:
                given = f"{its.label(0)}: batch {first.shape[0]}, {ports.label(index)}: batch {value.shape[0]}"
                raise ShapeError(where, given, "all inputs and conditions of a call have the same batch size")
            if value.dtype != reference.dtype:  # type: ignore[union-attr]
                raise _wrong_dtype(where, ports.label(index), value, reference)  # type: ignore[arg-type]
            if value.device != reference.device:  # type: ignore[union-attr]
                given = f"{ports.label(index)}: on {value.device}"
                raise InputTypeError(where, given, f"expected {reference.device}: move one of them with .to(...)")  # type: ignore[union-attr]
    if first is None:
        raise ShapeError(where, "no tensors", "a call needs at least one input")
    return first.shape[0], first.dtype


def _wrong_dtype(where: str, label: str, value: Tensor, reference: Tensor) -> InputTypeError:
    advice = f"expected {reference.dtype}: nothing is cast silently; convert the data, or the module with .to(dtype)"
    return InputTypeError(where, f"{label}: {value.dtype}", advice)


def check_result(
    where: str, kind: str, shapes: Sequence[Shape], values: Tensors, log_det: Tensor, data: Tensor
) -> None:
    """Refuse what a layer returned when it is not what the layer declares.

    Arguments:
        where: the layer, for the error.
        kind: whether it returned its outputs or its inputs.
        shapes: what it declares them to be.
        values: what it returned.
        log_det: the log-determinant that it returned.
        data: a tensor that it was given, whose batch and dtype the results share.
    """
    batch, dtype = data.shape[0], data.dtype
    if not isinstance(values, tuple) or len(values) != len(shapes):
        count = f"{len(values)} values" if isinstance(values, tuple) else f"a {type(values).__name__}"
        raise ShapeError(where, f"returned {count}", f"declared a tuple of {len(shapes)} {kind}s")
    for index in range(len(values)):
        value, shape = values[index], shapes[index]
        if value.shape[0] != batch or value.shape[1:] != shape:
            given = f"returned {kind} {index} of shape {tuple(value.shape)}"
            raise ShapeError(where, given, f"declared {batched(shape)}: out_shapes, _forward and _inverse must agree")
        if value.dtype != dtype:
            raise InputTypeError(
                where, f"returned {kind} {index} of {value.dtype}", f"expected {dtype}, the data's: cast it back"
            )
    if not isinstance(log_det, Tensor) or log_det.ndim != 1 or log_det.shape[0] != batch or log_det.dtype != dtype:
        got = f"{tuple(log_det.shape)} {log_det.dtype}" if isinstance(log_det, Tensor) else type(log_det).__name__
        raise ShapeError(where, f"returned log_det: {got}", f"expected shape (B,) and {dtype}, one number per sample")
