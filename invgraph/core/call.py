"""A call of a module in either direction, and every check of what it is called with and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from invgraph.core.derived_weights import renew_weights
from invgraph.core.misuse import surplus_arguments
from invgraph.errors import InputTypeError, ShapeError
from invgraph.shapes import Shape, Structured, Tensors, batched
from invgraph.torch_internals import floating_tensor, has_hooks

Result = tuple[Tensors, Tensor]
"""Values and log-determinant."""


class CheckedTensors(tuple[Tensor, ...]):
    """Tensors that a graph has checked already; a layer that is handed them does not check them again."""

    __slots__ = ()


class TwoWay(nn.Module):
    """Base class of :class:`~invgraph.Invertible`: how it is called in both directions, and what is checked."""

    call_name: ClassVar[str] = "layer"
    _compiled_inverse_impl: Callable[..., Any] | None = None  # the inverse's counterpart of _compiled_call_impl
    label: str
    in_shapes: tuple[Shape, ...]
    cond_shapes: tuple[Shape, ...]

    if TYPE_CHECKING:
        __call__: Callable[..., Any]

        def _forward(self, xs: Tensors, given: Any) -> Result: ...

        def _inverse(self, ys: Tensors, given: Any) -> Result: ...

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        """The shapes of the outputs, without the batch; those of the inputs unless a layer says otherwise."""
        return self.in_shapes

    @final  # type: ignore[misc]
    def forward(self, xs: Any = None, cs: Any = (), *more: object, **named: object) -> tuple[Any, Tensor]:
        """Return outputs and log-determinant, from inputs and conditions."""
        if type(xs) is CheckedTensors:  # a graph calls, and checks what comes out
            return self._forward(tuple(xs), cs)  # torch.compile traces functions of plain tuples only
        if more or named:
            raise surplus_arguments(self.label, self.call_name, self._inputs(), self._conditions(), len(more), named)
        return self._call(self._forward, self._inputs(), self._outputs(), xs, cs)

    @final
    def inverse(self, ys: Any = None, cs: Any = (), *more: object, **named: object) -> tuple[Any, Tensor]:
        """Return inputs and log-determinant of the inverse, from outputs and conditions."""
        if more or named:
            call = f"{self.call_name}.inverse"
            raise surplus_arguments(self.label, call, self._outputs(), self._conditions(), len(more), named)
        if self._compiled_inverse_impl is not None:
            return self._compiled_inverse_impl(ys, cs)  # type: ignore[no-any-return]
        return self._inverse_impl(ys, cs)

    def _inverse_impl(self, ys: Structured, cs: Any = ()) -> tuple[Any, Tensor]:
        if has_hooks(self):
            renew_weights(self)
        if type(ys) is CheckedTensors:
            return self._inverse(tuple(ys), cs)
        return self._call(self._inverse, self._outputs(), self._inputs(), ys, cs)

    def _call(
        self,
        direction: Callable[[Tensors, Any], Result],
        source: Ports,
        target: Ports,
        values: Structured,
        conditions: Structured,
    ) -> tuple[Any, Tensor]:
        given_ports = self._conditions()
        method = ".inverse" if source.kind == "output" else ""
        given_ports.require_given(self.label, conditions, f"{self.call_name}{method}({{x}}, {{c}})", source)
        xs = source.unpack(self.label, values)
        cs = given_ports.unpack(self.label, conditions)
        check_together(self.label, ((source, xs), (given_ports, cs)), floating_tensor(self))
        ys, log_det = direction(xs, cs)
        check_result(self.label, target.kind, target.shapes, ys, log_det, xs[0])
        return target.pack(ys), log_det

    def _inputs(self) -> Ports:
        return Ports("input", self.in_shapes)

    def _outputs(self) -> Ports:
        return Ports("output", self.out_shapes)

    def _conditions(self) -> Ports:
        return Ports("condition", self.cond_shapes)


def call_checked(layer: TwoWay, xs: Tensors, given: Any, *, inverse: bool) -> Result:
    """Call a layer with values that are checked already; tuples in and out, whatever structure it declares."""
    if inverse:
        return layer.inverse(CheckedTensors(xs), given)
    return layer(CheckedTensors(xs), given)  # type: ignore[no-any-return]


class Ports(NamedTuple):
    """The declared values at one side of a module: what a call is checked against.

    ``bare`` is True if one value was declared alone: it is passed as a tensor, not as a tuple of one.
    """

    kind: str
    shapes: tuple[Shape, ...]
    names: tuple[str, ...] = ()
    bare: bool = False

    def label(self, index: int) -> str:
        """Return the name of a value in errors, or its place if it has none."""
        return f"{self.kind} '{self.names[index]}'" if self.names else f"{self.kind} {index}"

    def named(self, kind: str) -> Ports:
        """The same values as another side of a module."""
        return Ports(kind, self.shapes, self.names, self.bare)  # torch 2.8 can't compile _replace

    def require_given(self, where: str, values: object, call: str, others: Ports | None = None) -> None:
        """Refuse a call without the conditions, and show the call that was meant.

        Arguments:
            where: The module, for the error.
            values: What was given as conditions.
            call: The call, with ``{c}`` for the conditions and ``{x}`` for the values of the other side.
            others: The ports of the other side.
        """
        expected = len(self.shapes)
        count = 0 if values is None else len(values) if isinstance(values, (tuple, list)) else expected
        if count >= expected:
            return
        meant = call.format(c=self.placeholder(), x="" if others is None else others.placeholder())
        given = f"{count or 'no'} {self.kind}{'' if count == 1 else 's'}"
        advice = f"expected {expected} ({self._labels()}): missing {self.kind}"
        if count == 0:
            advice = f"{' and '.join(map(self.label, range(expected)))} {'is' if expected == 1 else 'are'} missing"
        raise (InputTypeError if self.bare else ShapeError)(where, given, f"{advice}: call {meant}")

    def unpack(self, where: str, values: object) -> Tensors:
        """The tensors of a call, as a tuple, each one checked on its own."""
        if self.bare:
            values = (values,)
        if not isinstance(values, (tuple, list)):
            wanted = f"no {self.kind}s"
            if self.shapes:
                count = f"{len(self.shapes)} tensors" if len(self.shapes) > 1 else "1 tensor: (x,) for a tensor x"
                wanted = f"a tuple of {count}"
            raise InputTypeError(where, f"{self.kind}s: {type(values).__name__}", f"expected {wanted}")
        if len(values) != len(self.shapes):
            few = "missing" if len(values) < len(self.shapes) else "surplus"
            given = f"{len(values)} {self.kind}{'' if len(values) == 1 else 's'}"
            raise ShapeError(where, given, f"expected {len(self.shapes)} ({self._labels()}): {few} {self.kind}")
        for index in range(len(values)):  # torch.compile traces enumerate and zip far more slowly
            value = values[index]
            if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_nested:
                raise self._not_dense(where, index, value)
            if not value.is_floating_point():  # before the shape: class labels lack an axis as well
                raise self._not_floating(where, index, value)
            if value.shape[1:] != self.shapes[index] or value.ndim == 0:
                raise self._misshapen(where, index, value)
        return tuple(values)

    def pack(self, values: Tensors) -> Tensor | Tensors:
        """The values in the structure they were declared with."""
        return values[0] if self.bare else values

    def _name(self, index: int) -> str:
        """Return what stands for one value in a line of code."""
        named = bool(self.names) and self.names[index].isidentifier()
        return self.names[index] if named else self.kind

    def _labels(self) -> str:
        return ", ".join(map(self.label, range(len(self.shapes)))) or "none"

    def placeholder(self) -> str:
        """Return what stands for the values in the text of a call: ``x``, or ``(a, b)``."""
        letter = {"input": "x", "output": "z"}.get(self.kind, "c")
        count = len(self.shapes)
        names = [letter] if count == 1 else [f"{letter}{index}" for index in range(count)]
        if self.kind != "output" and all(name.isidentifier() for name in self.names):
            names = list(self.names) or names
        return names[0] if self.bare else f"({', '.join(names)}{',' if count == 1 else ''})"

    def _not_dense(self, where: str, index: int, value: object) -> InputTypeError:
        if not isinstance(value, Tensor):
            given, advice = type(value).__name__, "expected a torch.Tensor"
            if isinstance(value, (tuple, list)) and self.bare:
                advice += f": the {self.kind} was declared alone, pass the tensor itself"
            elif type(value).__module__ == "numpy":
                advice += ": convert it with torch.from_numpy"
        else:
            given = "a nested tensor" if value.is_nested else f"a tensor of layout {value.layout}"
            advice = "expected a dense (strided) tensor"
        return InputTypeError(where, f"{self.label(index)}: {given}", advice)

    def _misshapen(self, where: str, index: int, value: Tensor) -> ShapeError:
        expected = f"expected {batched(self.shapes[index])}, got {tuple(value.shape)}"
        shape = self.shapes[index]
        if value.shape == shape:
            advice = f"did you forget the batch dimension? Write {self._name(index)}.unsqueeze(0) for a batch of one"
        elif value.ndim != len(shape) + 1:
            advice = f"wrong number of dimensions: {value.ndim} instead of {len(shape) + 1}"
        elif len(shape) == 3 and value.shape[1:] == (*shape[1:], shape[0]):
            advice = f"wrong shape: channels come first, write {self._name(index)}.permute(0, 3, 1, 2)"
        else:
            wrong = [axis for axis in range(1, value.ndim) if value.shape[axis] != shape[axis - 1]]
            sizes = (f"axis {axis} has size {value.shape[axis]} instead of {shape[axis - 1]}" for axis in wrong)
            advice = f"wrong shape: {', '.join(sizes)}"
        return ShapeError(where, f"{self.label(index)}: {expected}", advice)

    def _not_floating(self, where: str, index: int, value: Tensor) -> InputTypeError:
        advice = "expected a real floating-point tensor: convert it with .float()"
        if self.kind == "condition" and not value.is_complex():
            classes = self.shapes[index][0] if len(self.shapes[index]) == 1 else "classes"
            advice += f", or class labels with torch.nn.functional.one_hot({self._name(index)}, {classes}).float()"
        return InputTypeError(where, f"{self.label(index)}: {value.dtype}", advice)


def check_together(
    where: str, sides: Sequence[tuple[Ports, Tensors]], reference: Tensor | None
) -> tuple[int | torch.SymInt, torch.dtype]:
    """Return batch size and dtype of a call; refuse tensors that differ in batch, dtype or device.

    Arguments:
        where: The module, for the error.
        sides: The ports of data and of conditions, each with its unpacked tensors.
        reference: A tensor of the module, whose dtype and device the data must have; None for a module without any.
    """
    first: Tensor | None = None
    for ports, values in sides:
        for index in range(len(values)):
            value = values[index]
            if first is None:
                first, first_ports, like = value, ports, value if reference is None else reference
            elif value.shape[0] != first.shape[0]:
                raise _other_batch(where, (first_ports, first), ports, index, value)
            if value.dtype != like.dtype:
                raise _wrong_dtype(where, ports.label(index), value, like)
            if value.device != like.device:
                given = f"{ports.label(index)}: on {value.device}"
                raise InputTypeError(where, given, f"expected {like.device}: move one of them with .to(...)")
    if first is None:
        raise ShapeError(where, "no tensors", "a call needs at least one input")
    return first.shape[0], first.dtype


def _other_batch(where: str, first: tuple[Ports, Tensor], ports: Ports, index: int, value: Tensor) -> ShapeError:
    its, reference = first
    given = f"{its.label(0)}: batch {reference.shape[0]}, {ports.label(index)}: batch {value.shape[0]}"
    advice = "all inputs and conditions of a call have the same batch size"
    if ports.kind == "condition" and its.kind != "condition" and value.shape[0] == 1:
        times = ", ".join(str(size) for size in (reference.shape[0], *(-1 for _ in value.shape[1:])))
        advice += f": write {ports._name(index)}.expand({times})"
        if ports.names:
            advice += f", or use graph.bind({ports.placeholder()}) for many samples under one condition"
    return ShapeError(where, given, advice)


def _wrong_dtype(where: str, label: str, value: Tensor, reference: Tensor) -> InputTypeError:
    advice = f"expected {reference.dtype}: nothing is cast silently; convert the data, or the module with .to(dtype)"
    return InputTypeError(where, f"{label}: {value.dtype}", advice)


def check_result(
    where: str, kind: str, shapes: Sequence[Shape], values: Tensors, log_det: Tensor, data: Tensor
) -> None:
    """Refuse what a layer returned when it is not what the layer declares.

    Arguments:
        where: The layer, for the error.
        kind: ``"output"`` or ``"input"``, the side that the layer returned.
        shapes: The shapes that the layer declares.
        values: The values that it returned.
        log_det: The log-determinant that it returned.
        data: One of its arguments, whose batch and dtype the results must have.
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
            given = f"returned {kind} {index} of {value.dtype}"
            raise InputTypeError(where, given, f"expected {dtype}, the dtype of the data: cast it back")
    if not isinstance(log_det, Tensor) or log_det.ndim != 1 or log_det.shape[0] != batch or log_det.dtype != dtype:
        got = f"{tuple(log_det.shape)} {log_det.dtype}" if isinstance(log_det, Tensor) else type(log_det).__name__
        raise ShapeError(where, f"returned log_det: {got}", f"expected shape (B,) and {dtype}, one number per sample")
