"""The contract of a layer, and the three ways to hold one: as written, inverted, nested in a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from invgraph.core.vjp import Gradients, Slopes, Undone
from invgraph.errors import ArgumentError, GraphError, ShapeError
from invgraph.shapes import (
    Checked,
    Ports,
    Shape,
    Structured,
    Tensors,
    as_shapes,
    check_result,
    check_together,
    floating_tensor,
    repeat_rows,
)

Result = tuple[Tensors, Tensor]


class Invertible(nn.Module, ABC):
    """An invertible layer: ``ys, log_det = layer(xs, cs)`` and ``xs, log_det = layer.inverse(ys, cs)``.

    A subclass writes :meth:`_forward`, :meth:`_inverse` and :attr:`out_shapes`; everything that a call must be checked
    for is checked here, once. ``log_det`` is log |det J| of the direction taken, in nats, of shape ``(B,)`` and of the
    data's dtype.

    Arguments:
        in_shapes: the shapes of the inputs, without the batch.
        cond_shapes: the shapes of the conditions, without the batch.

    Attributes:
        conditional: whether the class takes conditions.
        reads_with: the argument without which a layer of the class takes none; None: it needs no such argument.
        arity: how many inputs it takes; None for any number.
        compiled_once: whether equal layers of a compiled graph share their code; their outputs may not be views of
            their inputs.
    """

    conditional: ClassVar[bool] = False
    reads_with: ClassVar[str | None] = None
    arity: ClassVar[int | None] = 1
    compiled_once: ClassVar[bool] = False
    _compiled_inverse_impl: Callable[..., Any] | None = None  # as nn.Module's own _compiled_call_impl

    if TYPE_CHECKING:
        __call__: Callable[..., Any]

    def __init__(self, in_shapes: object, cond_shapes: object = ()) -> None:
        super().__init__()
        name = type(self).__name__
        self.label = name
        self.in_shapes: tuple[Shape, ...] = as_shapes(in_shapes, name)
        self.cond_shapes: tuple[Shape, ...] = as_shapes(cond_shapes, name)
        if self.arity is not None and len(self.in_shapes) != self.arity:
            raise GraphError(name, f"{len(self.in_shapes)} inputs", f"expected {self.arity}")
        if self.cond_shapes and not self.conditional:
            raise GraphError(name, f"conditions of shapes {self.cond_shapes}", f"{name} takes no conditions")

    @property
    @abstractmethod
    def out_shapes(self) -> tuple[Shape, ...]:
        """The shapes of the outputs, without the batch."""

    @abstractmethod
    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        """Outputs and log-determinant; the arguments are checked."""

    @abstractmethod
    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        """Inputs and log-determinant of the inverse; the arguments are checked."""

    def share(self, cs: Tensors) -> Any:
        """What depends on the conditions alone, which a bound graph computes once; by default the conditions."""
        return cs

    def _forward_shared(self, xs: Tensors, shared: Any) -> Result:
        """As :meth:`_forward`, from what :meth:`share` returned for fewer rows than there are samples."""
        return self._forward(xs, tuple(repeat_rows(c, xs[0].shape[0]) for c in shared))

    def _inverse_shared(self, ys: Tensors, shared: Any) -> Result:
        """As :meth:`_inverse`, from what :meth:`share` returned for fewer rows than there are samples."""
        return self._inverse(ys, tuple(repeat_rows(c, ys[0].shape[0]) for c in shared))

    def _undo(self, ys: Tensors, cs: Tensors, slopes: Slopes, gradients: Gradients, *, inverse: bool) -> Undone | None:
        """As :func:`invgraph.core.vjp.undo`, in a way of the layer's own; None: it has none."""
        return None

    @final
    @torch.no_grad()
    def initialize(self, *batch: Structured) -> None:
        """Set what depends on data, from a batch of it; a graph does so in one walk, each layer from what reaches it.

        A few layers have something to set (:class:`~invgraph.ActNorm`, :class:`~invgraph.AllInOne`, the noise of
        :class:`~invgraph.Dequantize`), for the others this only checks its arguments.

        Arguments:
            batch: ``initialize(inputs, conditions)``, as in a forward call; conditions may be left out where there are
                none. Where inputs are a tuple, as those of layers are, the tensors may also come one after the other.

        Raises:
            ShapeError: a tensor is missing, is one too many, or has the wrong shape.
            InputTypeError: something else was given, or tensors of another dtype or device.
        """
        xs, cs = self._batch(batch)
        sides = ((self._inputs(), xs), (self._conditions(), cs))
        check_together(self.label, sides, floating_tensor(self))
        self._initialize(xs, cs)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Set what depends on data, from inputs and conditions that are checked; without gradients."""

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        """As :meth:`_initialize`, of a layer that data reach from its outputs (:class:`Inverse`)."""

    def _batch(self, batch: Sequence[Structured]) -> tuple[Tensors, Tensors]:
        """Inputs and conditions from the arguments of :meth:`initialize`."""
        source, given = self._inputs(), self._conditions()
        if batch and not source.single and all(isinstance(part, Tensor) for part in batch):
            count = len(source.shapes)
            listed = Ports(given.kind, given.shapes, given.names)
            return source.unpack(self.label, batch[:count]), listed.unpack(self.label, batch[count:])
        if len(batch) not in (1, 2):
            raise ShapeError(self.label, f"{len(batch)} arguments", "expected initialize(inputs, conditions)")
        inputs, conditions = (*batch, ())[:2]
        return source.unpack(self.label, inputs), given.unpack(self.label, conditions)

    @final  # type: ignore[misc]
    def forward(self, xs: Structured, cs: Structured = ()) -> tuple[Any, Tensor]:
        """Outputs and log-determinant, from inputs and conditions."""
        if type(xs) is Checked:  # a graph calls, and checks what comes out
            return self._forward(xs, cs)  # type: ignore[arg-type]
        return self._call(self._forward, self._inputs(), self._outputs(), xs, cs)

    @final
    def inverse(self, ys: Structured, cs: Structured = ()) -> tuple[Any, Tensor]:
        """Inputs and log-determinant of the inverse, from outputs and conditions."""
        if self._compiled_inverse_impl is not None:
            return self._compiled_inverse_impl(ys, cs)  # type: ignore[no-any-return]
        return self._inverse_impl(ys, cs)

    def _inverse_impl(self, ys: Structured, cs: Structured = ()) -> tuple[Any, Tensor]:
        if type(ys) is Checked:
            return self._inverse(ys, cs)  # type: ignore[arg-type]
        return self._call(self._inverse, self._outputs(), self._inputs(), ys, cs)

    def _call(
        self,
        direction: Callable[[Tensors, Tensors], Result],
        source: Ports,
        target: Ports,
        values: Structured,
        conditions: Structured,
    ) -> tuple[Any, Tensor]:
        given = self._conditions()
        xs = source.unpack(self.label, values)
        cs = given.unpack(self.label, conditions)
        check_together(self.label, ((source, xs), (given, cs)), floating_tensor(self))
        ys, log_det = direction(xs, cs)
        check_result(self.label, target.kind, target.shapes, ys, log_det, xs[0])
        return target.pack(ys), log_det

    def _inputs(self) -> Ports:
        return Ports("input", self.in_shapes)

    def _outputs(self) -> Ports:
        return Ports("output", self.out_shapes)

    def _conditions(self) -> Ports:
        return Ports("condition", self.cond_shapes)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are not compiled, as those of any module."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_compiled_inverse_impl", None)
        return state

    def extra_repr(self) -> str:
        shapes = f"{_told(self.in_shapes)} -> {_told(self.out_shapes)}"
        return f"{shapes} | {_told(self.cond_shapes)}" if self.cond_shapes else shapes


def _told(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(str(shape) for shape in shapes)


def require_invertible(module: object, where: str) -> Invertible:
    """Refuse what is not a layer or graph, such as a class."""
    if not isinstance(module, Invertible):
        raise ArgumentError(where, type(module).__name__, "expected an Invertible, already built")
    return module


@final
class Inverse(Invertible):
    """A module with its two directions swapped.

    It is a module of its own, with the parameters of the one it holds: hand it to ``DistributedDataParallel``,
    ``torch.compile`` or ``torch.export`` when the inverse is what trains or is exported.

    .. math:: y = f^{-1}(x; c)

    Shape:
        The module's, the other way: from its outputs to its inputs.

    Log-det:
        That of the module's inverse, nats per sample.

    Arguments:
        module: a layer or a graph.

    Example:
        >>> import torch, invgraph as ig
        >>> upsample = ig.Inverse(ig.Haar((3, 8, 8)))
        >>> (x,), log_det = upsample((torch.zeros(2, 12, 4, 4),))
        >>> x.shape
        torch.Size([2, 3, 8, 8])
    """

    conditional = True
    arity = None

    def __init__(self, module: Invertible) -> None:
        module = require_invertible(module, "Inverse")
        super().__init__(module.out_shapes, module.cond_shapes)
        self.module = module

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.module.in_shapes

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return flat_call(self.module.inverse, self._inputs(), self._conditions(), xs, cs)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return flat_call(self.module, self._outputs(), self._conditions(), ys, cs)

    def share(self, cs: Tensors) -> Any:
        return self.module.share(cs)

    def _forward_shared(self, xs: Tensors, shared: Any) -> Result:
        return self.module._inverse_shared(xs, shared)

    def _inverse_shared(self, ys: Tensors, shared: Any) -> Result:
        return self.module._forward_shared(ys, shared)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """From data that enter here, at the module's outputs."""
        self.module._initialize_inverse(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.module._initialize(ys, cs)

    def _inputs(self) -> Ports:
        return self.module._outputs().named("input")

    def _outputs(self) -> Ports:
        return self.module._inputs().named("output")

    def _conditions(self) -> Ports:
        return self.module._conditions()


@final
class Nested(Invertible):
    """A graph as a layer of another graph: tuples in and out, whatever structure the graph was declared with."""

    conditional = True
    arity = None

    def __init__(self, module: Invertible) -> None:
        module = require_invertible(module, "Nested")
        super().__init__(module.in_shapes, module.cond_shapes)
        self.module = module

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.module.out_shapes

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return flat_call(self.module, self.module._inputs(), self.module._conditions(), xs, cs)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return flat_call(self.module.inverse, self.module._outputs(), self.module._conditions(), ys, cs)

    def share(self, cs: Tensors) -> Any:
        return self.module.share(cs)

    def _forward_shared(self, xs: Tensors, shared: Any) -> Result:
        return self.module._forward_shared(xs, shared)

    def _inverse_shared(self, ys: Tensors, shared: Any) -> Result:
        return self.module._inverse_shared(ys, shared)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        self.module._initialize(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.module._initialize_inverse(ys, cs)


def as_layer(module: Invertible) -> Invertible:
    """The module itself where it takes and returns tuples, else :class:`Nested` round it."""
    ports = (module._inputs(), module._outputs(), module._conditions())
    return Nested(module) if any(port.single for port in ports) else module


def flat_call(
    direction: Callable[..., Any], source: Ports, given: Ports, values: Tensors, conditions: Tensors
) -> Result:
    """Call a structured direction with tuples, and give tuples back."""
    # A plain tuple: what a graph has checked are tuples, and the conditions may not be one here.
    outputs, log_det = direction(source.pack(tuple(values)), given.pack(conditions))
    return (outputs if isinstance(outputs, tuple) else (outputs,)), log_det
