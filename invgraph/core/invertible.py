"""The contract of a layer: two directions, each with its log-determinant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import FunctionType
from typing import Any, ClassVar, Literal, Self, final

import torch

from invgraph.arguments import require_flag
from invgraph.core.call import Result as Result
from invgraph.core.call import check_together
from invgraph.core.given import Precomputed
from invgraph.core.modes import own_tensors, restored_on_error
from invgraph.core.ranges import Ranged
from invgraph.core.vjp import Replayed
from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.processes import Group, broadcast, find_group, summed_over
from invgraph.shapes import Shape, Structured, Tensors, as_shapes, describe_shapes
from invgraph.torch_internals import floating_tensor


class Invertible(Replayed, Ranged, ABC):
    """An invertible layer: ``ys, log_det = layer(xs, cs)`` and ``xs, log_det = layer.inverse(ys, cs)``.

    A subclass defines :meth:`_forward` and :meth:`_inverse`, and :attr:`out_shapes` if they differ from the input's.
    :meth:`forward` and :meth:`inverse` check the arguments and results of every call, once. ``log_det`` is
    log |det J| of the direction taken, in nats, of shape ``(B,)`` and of the data's dtype.

    Arguments:
        in_shapes: The shapes of the inputs, without the batch.
        cond_shapes: The shapes of the conditions, without the batch.

    Attributes:
        conditional: True if layers of the class may take conditions.
        condition_argument: Constructor argument that must be set for the layer to take conditions, e.g. ``"subnet"``;
            None if it always does.
        arity: Number of inputs; None for any number.
        call_name: Name of a module of the class in the example calls that errors show.
        compile_as_region: True if equal layers of a compiled graph share their compiled code; their outputs may not be
            views of their inputs.
        fixed_size_reason: Reason why a layer of the class can't run at other spatial sizes, for the error of
            :meth:`invgraph.Graph.at`; None if it can, because nothing that it keeps depends on them.
    """

    conditional: ClassVar[bool] = False
    condition_argument: ClassVar[str | None] = None
    arity: ClassVar[int | None] = 1
    compile_as_region: ClassVar[bool] = False
    fixed_size_reason: ClassVar[str | None] = (
        "layers of its class are built for one size; if nothing that they keep depends on it, set "
        "fixed_size_reason = None in the class"
    )
    _resized_from: Invertible | None = None  # the layer as it was built, whose parameters this one shares

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(vars(cls).get("out_shapes"), FunctionType):
            advice = "out_shapes is an attribute, not a method: write @property above it"
            raise ArgumentError(f"class {cls.__name__}", "def out_shapes(...) without @property", advice)

    def __init__(self, in_shapes: object, cond_shapes: object = ()) -> None:
        super().__init__()
        name = type(self).__name__
        self.label = name
        self.in_shapes = as_shapes(in_shapes, name)
        self.cond_shapes = as_shapes(cond_shapes, name)
        if self.arity is not None and len(self.in_shapes) != self.arity:
            raise GraphError(name, f"{len(self.in_shapes)} inputs", f"expected {self.arity}")
        if self.cond_shapes and not self.conditional:
            raise GraphError(name, f"conditions of shapes {self.cond_shapes}", f"{name} takes no conditions")

    @property
    def stochastic(self) -> bool:
        """True if calls in training mode draw random numbers from torch's global generator, as dropout does."""
        return any(isinstance(part, Invertible) and part._draws() for part in self.modules())

    def _draws(self) -> bool:
        return False

    @abstractmethod
    def _forward(self, xs: Tensors, given: Any) -> Result:
        """Return outputs and log-determinant.

        Arguments:
            xs: The inputs, checked.
            given: The conditions, checked; or what :meth:`precompute` returned for them, if the layer overrides it.
        """

    @abstractmethod
    def _inverse(self, ys: Tensors, given: Any) -> Result:
        """Return inputs and log-determinant of the inverse; the counterpart of :meth:`_forward`."""

    def precompute(self, cs: Tensors) -> Any:
        """Return what depends on the conditions alone; a bound graph computes it once.

        A layer that overrides it returns a :class:`~invgraph.core.given.Precomputed`. It may then be handed to
        :meth:`_forward` and :meth:`_inverse` with fewer rows than the data, each of which serves several samples.
        """
        return cs

    @final
    def _precomputed(self, given: Any) -> Precomputed:
        """Return what :meth:`precompute` makes of the conditions, unless that is what was given."""
        return given if isinstance(given, Precomputed) else self.precompute(given)

    @final
    @torch.no_grad()
    def initialize(
        self,
        inputs: Structured,
        conditions: Structured = (),
        *,
        again: bool = False,
        group: Group | Literal[False] | None = None,
    ) -> None:
        """Set the parameters that depend on data, from a batch; a graph sets each layer from the values that reach it.

        Only a few layers have such parameters: :class:`~invgraph.ActNorm`, :class:`~invgraph.AllInOne`, the noise of
        :class:`~invgraph.Dequantize`. For all others this only checks its arguments.

        Arguments:
            inputs: The inputs, as in a forward call.
            conditions: The conditions, as in a forward call.
            again: If True, overwrite parameters that ``initialize``, training or a checkpoint has set. If False
                (default), raise an error instead.
            group: Processes that initialize together, each from its own rows, all to the same values; each must call
                this. None (default): all of ``torch.distributed``, if it is in use. False: this process only.

        Raises:
            GraphError: If a layer is already initialized, or the data have no values (meta device).
            ShapeError: If a tensor is missing, is one too many, or has the wrong shape.
            InputTypeError: If something else was given, or tensors of another dtype or device.
        """
        source, given = self._inputs(), self._conditions()
        given.require_given(self.label, conditions, f"{self.call_name}.initialize({{x}}, {{c}})", source)
        xs, cs = source.unpack(self.label, inputs), given.unpack(self.label, conditions)
        check_together(self.label, ((source, xs), (given, cs)), floating_tensor(self))
        if any(x.is_meta for x in xs):
            advice = "start values are taken from data: build it on another device, or load it, and pass a batch"
            raise GraphError(f"initialize: {self.label}", "data on the meta device, which have no values", advice)
        require_flag(self.label, "again", again)
        group = find_group(group)
        parts = [part for part in self.modules() if isinstance(part, Invertible)]
        for part in [] if again else [part for part in parts if part._is_initialized()]:
            advice = "it would lose what it has learned; initialize(..., again=True) overwrites it"
            raise GraphError(part.label, "a layer that is already initialized", advice)
        tensors = [tensor for part in parts for tensor in own_tensors(part)]
        try:
            with restored_on_error(tensors), summed_over(group):
                self._initialize(xs, cs)
            broadcast(tensors, group)  # also what other layers draw or compute
        finally:
            for part in parts:
                part._is_initialized()

    def _is_initialized(self) -> bool:
        """True if what depends on data was set; False also for layers that have nothing to set."""
        return False

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Set what depends on data, from checked inputs and conditions; without gradients."""

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        """Set what depends on data that enter at the outputs, as in an :class:`~invgraph.Inverse`."""

    def _resize(self, before: tuple[Shape, ...]) -> None:
        """Adapt a copy of a layer, which shares its parameters, to the ``in_shapes`` and ``cond_shapes`` it now has.

        A layer that keeps something that depends on its sizes, or has subnets, computes and checks them again here.

        Arguments:
            before: The shapes of the inputs of the original.

        Raises:
            GraphError: If the layer can't follow.
        """
        given = f"input of shape {describe_shapes(self.in_shapes)} instead of {describe_shapes(before)}"
        if self.fixed_size_reason is not None:
            raise GraphError(self.label, given, f"its size can't change: {self.fixed_size_reason}")
        for old, new in zip(before, self.in_shapes, strict=True):
            if old[0] != new[0] or len(old) != len(new):
                advice = f"its {old[0]} channels became {new[0]}: only spatial sizes may change"
                if len(new) == 1:
                    advice += ", and a vector has none; if a Flatten made it, put the layer before that"
                raise GraphError(self.label, given, f"its size can't change: {advice}")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle: without what was compiled, or kept to be quick."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name not in _NOT_COPIED}

    def __prepare_scriptable__(self) -> Self:
        """Refuse ``torch.jit.script``, which calls this first."""
        raise GraphError(self.label, "a call of torch.jit.script", "TorchScript is not supported: use ig.export")

    def extra_repr(self) -> str:
        more = f" | {describe_shapes(self.cond_shapes)}" if self.cond_shapes else ""
        return f"{describe_shapes(self.in_shapes)} -> {describe_shapes(self.out_shapes)}{more}"


_NOT_COPIED = ("_compiled_inverse_impl", "_compiled_bound_impl", "_fused", "_derived_from")


def require_invertible(module: object, where: str) -> Invertible:
    """Refuse anything but a layer or graph that is built already."""
    if not isinstance(module, Invertible):
        raise ArgumentError(where, type(module).__name__, "expected an Invertible, already built")
    return module
