"""Tracing with torch.export, and errors that name the layer that can't be traced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.core.modes import evaluating
from invgraph.errors import GraphError, InvgraphError, NumericsError
from invgraph.export.program import Program
from invgraph.shapes import Tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Attempt = Callable[[nn.Module, Tensors], object]


def trace(program: Program, arguments: Tensors) -> ExportedProgram:
    """Return the exported program of a module in evaluation mode, or name the layer that can't be exported."""
    with torch.no_grad(), evaluating(program):
        _rehearse(program, arguments)
        try:
            return as_program(program, arguments)
        except Exception as error:  # torch raises errors of many classes here; ours names the layer
            raise explain(program, "torch.export", error, as_program) from error


def as_program(module: nn.Module, arguments: Tensors) -> ExportedProgram:
    """Return what ``torch.export`` makes of a module, for any batch size."""
    sizes = tuple({0: torch.export.Dim("batch", min=1)} for _ in arguments)
    shapes = sizes if isinstance(module, torch.fx.GraphModule) else {"tensors": sizes}
    return torch.export.export(module, arguments, dynamic_shapes=shapes)


def explain(program: Program, tool: str, error: Exception, attempt: Attempt) -> GraphError:
    """Return an error that names the first layer with which an attempt fails on its own, if there is one."""
    failing = _failing_layer(program, attempt)
    if failing is None:
        return GraphError("export", f"export with {tool}", f"the export failed: {_reason(error)}")
    where, own = failing
    return GraphError(where, f"export with {tool}", f"this layer can't be exported: {_reason(own)}")


def _rehearse(program: Program, arguments: Tensors) -> None:
    """Refuse a model that a plain call refuses: traced code has no checks, and would fail where it is run."""
    failing: tuple[str, Exception] | None
    try:
        _call(program, arguments)
        return
    except NumericsError:  # zeros may lie outside a domain, and a trace reads no values; the other layers count
        failing = _failing_layer(program, _call_on_any_values)
    except InvgraphError as error:
        raise error.at("export") from error
    except Exception as error:
        failing = _failing_layer(program, _call_on_any_values) or ("export", error)
    if failing is not None:
        where, own = failing
        given = "a plain call in evaluation mode, which an export begins with"
        advice = f"it fails, and so would the program: {_reason(own)}{_mixed_dtypes(program)}"
        raise GraphError(where, given, advice) from own


def _mixed_dtypes(program: Program) -> str:
    """Return advice for a model of which a part was cast on its own; an empty text for another one."""
    tensors = (*program.parameters(), *program.buffers())
    dtypes = sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()})
    return f"; the model has tensors of {' and '.join(dtypes)}: cast all of it with .to(dtype)" if dtypes[1:] else ""


def _call(module: nn.Module, arguments: Tensors) -> None:
    """Call a module on tensors as it is written, and leave its buffers and the random numbers as they are."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    devices = sorted({value.get_device() for value in arguments if value.is_cuda})
    with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
        torch.func.functional_call(module, buffers, arguments)


def _call_on_any_values(module: nn.Module, arguments: Tensors) -> None:
    with suppress(NumericsError):
        _call(module, arguments)


def _failing_layer(program: Program, attempt: Attempt) -> tuple[str, Exception] | None:
    """Return the name of the first layer with which an attempt fails, on zeros, and its error."""
    for name, layer in program.graph.layers.items():
        if not isinstance(layer, Invertible):
            continue
        shapes = layer.out_shapes if program.is_inverse else layer.in_shapes
        try:
            attempt(_Layer(layer, program.is_inverse, len(shapes)), program.zeros((*shapes, *layer.cond_shapes)))
        except Exception as own:
            return f"node {name!r} ({type(layer).__name__})", own
    return None


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an error in one line; of an error of this library all that it says."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, InvgraphError):
        return f"{error.given}: {error.advice}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Layer(nn.Module):
    """One direction of a layer on separate tensors."""

    def __init__(self, layer: Invertible, inverse: bool, count: int) -> None:
        super().__init__()
        self.layer, self.inverse, self.count = layer, inverse, count

    def forward(self, *tensors: Tensor) -> Any:
        direction = self.layer.inverse if self.inverse else self.layer
        return direction(tensors[: self.count], tensors[self.count :])
