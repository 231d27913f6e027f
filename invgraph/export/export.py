"""Export of graphs to programs that run without this library: torch.export, ONNX, AOTInductor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from invgraph.core.modes import evaluating
from invgraph.errors import DependencyError
from invgraph.export.onnx import name_ends, onnx_program
from invgraph.export.program import Program, What
from invgraph.export.target import not_written, require_target
from invgraph.export.trace import as_program, explain, trace
from invgraph.flow import Flow
from invgraph.graph.graph import Graph
from invgraph.shapes import Tensors
from invgraph.torch_internals import aoti_package

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def export(model: Flow | Graph, what: What = "log_prob", *, example: Sequence[Tensor] | None = None) -> ExportedProgram:
    """Export a model in evaluation mode with ``torch.export``, for any batch size; the model does not change.

    Save the program with ``torch.export.save``, and run it with ``program.module()(x, c)``. See also
    :func:`export_onnx` and, for a compiled package, :func:`export_aoti`.

    A plain call is made first, so that a model that can't be called is refused. The program does not look at values: it
    has no checks of ``check_finite=True``, and base densities compute what they do with ``validate_args=False``.

    Arguments:
        model: Flow, or graph, which gets a standard normal base density.
        what: Function to export. ``"log_prob"`` (default): log-density from data and conditions; ``"sample"``: data
            from latents, which the caller draws from the base and scales by a temperature, and conditions;
            ``"forward"``, ``"inverse"``: the directions of the graph, with the log-determinant last.
        example: Data (or latents) and conditions to trace with, of at least two rows; their values do not matter.
            Default: zeros.

    Returns:
        The exported program.

    Raises:
        GraphError: If a layer can't be exported; the message names it.
        InvgraphError: If the model refuses a call, or the example does not fit it.

    Example:
        >>> import torch, invgraph as ig
        >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))
        >>> program = ig.export(flow, "log_prob")
        >>> program.module()(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    program = Program(model, what)
    return trace(program, program.arguments(example))


def export_onnx(
    model: Flow | Graph, path: str | Path, what: What = "log_prob", *, example: Sequence[Tensor] | None = None
) -> None:
    """Export a model to an ONNX file, for any batch size; needs the ``onnx`` extra (onnx, onnxscript).

    Inputs and outputs have the names of the graph's values, with ``latent_`` before those of latents, and of
    ``log_prob`` or ``log_det``. ONNX wants each name once: an output whose name is taken has ``_out`` behind it, and
    latents whose name is taken have ``_in``. Conditions keep their names.

    Arguments:
        model: Flow or graph.
        path: Path of the file, in a folder that exists.
        what: Function to export; see :func:`export`. Default: ``"log_prob"``.
        example: Tensors to trace with; see :func:`export`. Default: zeros.

    Raises:
        DependencyError: If a package of the extra is not installed.
        GraphError: If a layer can't be exported, which the message names, or the file can't be written.
        InvgraphError: If the model refuses a call, or the example does not fit it.

    Example:
        >>> import invgraph as ig
        >>> ig.export_onnx(flow, "log_prob.onnx")  # doctest: +SKIP
    """
    require_target("export_onnx", path)
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError("export_onnx", "onnxscript is not installed", "pip install onnx onnxscript") from error
    program = Program(model, what)
    exported = trace(program, program.arguments(example))
    with torch.no_grad(), evaluating(program):
        try:
            written = onnx_program(exported)
        except Exception as error:  # the exporter raises errors of many classes; ours names the layer
            raise explain(program, "ONNX", error, _layer_to_onnx) from error
    name_ends(written, *program.names)
    try:
        written.save(str(path))
    except OSError as error:
        raise not_written("export_onnx", path, error) from error


def export_aoti(
    model: Flow | Graph, path: str | Path, what: What = "log_prob", *, example: Sequence[Tensor] | None = None
) -> str:
    """Export a model to an AOTInductor package (``.pt2``) of machine code, for any batch size; needs a C++ compiler.

    Load it with ``torch._inductor.aoti_load_package(path)``.

    Arguments:
        model: Flow or graph.
        path: Path of the package, which ends in ``.pt2``, in a folder that exists.
        what: Function to export; see :func:`export`. Default: ``"log_prob"``.
        example: Tensors to trace with; see :func:`export`. Default: zeros.

    Returns:
        Path of the package.

    Raises:
        GraphError: If a layer can't be exported, which the message names, or the package can't be written.
        InvgraphError: If the model refuses a call, or the example does not fit it.

    Example:
        >>> import invgraph as ig
        >>> ig.export_aoti(flow, "log_prob.pt2")  # doctest: +SKIP
    """
    require_target("export_aoti", path, suffix=".pt2")
    program = Program(model, what)
    return aoti_package(trace(program, program.arguments(example)), str(path))


def _layer_to_onnx(layer: nn.Module, arguments: Tensors) -> None:
    onnx_program(as_program(layer, arguments))
