"""The steps of a schedule over modules with FrEIA's contract, with little beside the modules' own work."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from invgraph.core.call import check_result, check_together
from invgraph.freia.contract import Contract, Free
from invgraph.graph.run import Slots, call_feature, gather
from invgraph.graph.schedule import Schedule, Step
from invgraph.shapes import Tensors
from invgraph.torch_internals import as_function, floating_tensor

Expected = tuple[int | None, int | None]


class _Call(NamedTuple):
    """One step of a plan.

    Attributes:
        step: The step.
        layer: The native layer around the module, or a network of conditions.
        module: The module.
        arguments: Its keyword arguments beside the conditions.
        expected: Number of axes and channels of each value that it returns; None for channels where the shape is of no
            axes, and for both where it is not checked.
        one: True for one value in and one out.
    """

    step: Step
    layer: Any
    module: nn.Module
    arguments: dict[str, bool]
    expected: tuple[Expected, ...]
    one: bool


class Plan:
    """One direction of a network.

    A call of a small network is mostly Python, so what can be known beforehand is. Results in the usual form, tuples
    with a log-determinant of shape ``(B,)``, are taken as they are; the native layer brings all others to it, or
    refuses them. Hooks on modules fire; those on the native layers around them fire in native calls only.

    Arguments:
        schedule: The direction.
        layers: Native layers around the modules, and networks of conditions, in the graph's order.
    """

    def __init__(self, schedule: Schedule, layers: tuple[nn.Module, ...]) -> None:
        self.schedule = schedule
        self.calls = tuple(_call(schedule, step, layers[step.layer]) for step in schedule.steps)
        found = (call for call in self.calls if not call.step.feature and floating_tensor(call.layer) is not None)
        self.first = next(found, None)

    def run(self, slots: Slots) -> tuple[Tensors, Tensor]:
        """Return values and log-determinant, from slots that hold the inputs and conditions."""
        data = slots[self.schedule.starts[0]]
        assert data is not None
        self._check(slots, data)
        dtype, on_cuda, shape = data.dtype, data.is_cuda, data.shape[:1]
        batch = shape[0]
        total: Tensor | None = None
        for step, layer, module, arguments, expected, one in self.calls:
            cs = gather(slots, step.conditions) if step.conditions else ()
            if step.feature:
                outputs = call_feature(layer, cs, dtype)
            else:
                xs: Any = (slots[step.inputs[0]],) if one else gather(slots, step.inputs)
                call = as_function(module)
                result = call(xs, c=cs, **arguments) if cs else call(xs, **arguments)
                if type(result) is tuple and len(result) == 2 and type(result[0]) is tuple:
                    outputs, log_det = result
                else:
                    outputs, log_det = layer.as_native(result, data)
                usual = _is_zero(log_det) or (
                    type(log_det) is Tensor
                    and log_det.shape == shape
                    and log_det.dtype is dtype
                    and log_det.is_cuda == on_cuda
                )
                if not (usual and _are(outputs, expected, dtype, batch)):
                    outputs, log_det = layer.as_native((outputs, log_det), data)
                    self._check_result(layer, outputs, log_det, expected, data)
                if not _is_zero(log_det):
                    total = log_det if total is None else total + log_det
            if one:
                slots[step.outputs[0]] = outputs[0]
            else:
                for slot, output in zip(step.outputs, outputs, strict=True):
                    slots[slot] = output
            for slot in step.idle:
                slots[slot] = None
        return gather(slots, self.schedule.ends), data.new_zeros(shape) if total is None else total

    def _check(self, slots: Slots, data: Tensor) -> None:
        """Refuse data of another dtype than the network's."""
        if self.first is not None:
            own = floating_tensor(self.first.layer)
            if own is not None and own.dtype != data.dtype:
                ports = self.schedule.source
                values = gather(slots, self.schedule.starts)
                check_together(self.first.layer.label, ((ports, values),), own)

    def _check_result(self, layer: Any, outputs: Any, log_det: Any, expected: Any, data: Tensor) -> None:
        if not _are(outputs, expected, data.dtype, data.shape[0]):
            inverse = self.schedule.inverse
            kind, shapes = ("input", layer.in_shapes) if inverse else ("output", layer.out_shapes)
            check_result(layer.label, kind, shapes, outputs, log_det, data)


def _call(schedule: Schedule, step: Step, layer: Any) -> _Call:
    if not isinstance(layer, Contract):
        return _Call(step, layer, layer, {}, (), False)
    shapes = layer.in_shapes if schedule.inverse else layer.out_shapes
    expected = tuple((None, None) if isinstance(s, Free) else (len(s) + 1, s[0] if len(s) else None) for s in shapes)
    # A class says it of itself: a subclass of it may have a log-determinant.
    zero = vars(type(layer.module)).get("preserves_volume", False)
    arguments = {"rev": schedule.inverse, "jac": layer.jac and not zero}
    return _Call(step, layer, layer.module, arguments, expected, len(step.inputs) == len(step.outputs) == 1)


def _is_zero(log_det: object) -> bool:
    """True for the number that stands for no log-determinant."""
    return type(log_det) is float and log_det == 0.0


def _are(values: Any, expected: tuple[Expected, ...], dtype: Any, batch: int) -> bool:
    """True if values have the dtype, the batch, and the declared numbers of axes and channels."""
    if len(values) != len(expected):
        return False
    for value, (axes, channels) in zip(values, expected, strict=True):
        sizes = value.shape
        if value.dtype is not dtype or sizes[0] != batch or (axes is not None and len(sizes) != axes):
            return False
        if channels is not None and sizes[1] != channels:
            return False
    return True
