"""Export of graphs to programs that run without this library: torch.export, ONNX, AOTInductor."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice
from invgraph.checkpoint.atomic_file import as_path, require_regular
from invgraph.core.invertible import Invertible
from invgraph.core.modes import evaluating
from invgraph.errors import ArgumentError, DependencyError, GraphError
from invgraph.flow import Flow
from invgraph.graph.graph import Graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import aoti_package, floating_tensor

if TYPE_CHECKING:
    from torch.export import ExportedProgram

What = Literal["log_prob", "sample", "forward", "inverse"]


class Program(nn.Module):
    """Module that computes one function of a flow or graph on separate tensors, for export.

    Arguments:
        model: Flow or graph.
        what: Function: ``"log_prob"``, ``"sample"``, ``"forward"`` or ``"inverse"``; see :func:`export`.
    """

    def __init__(self, model: Flow | Graph, what: What) -> None:
        super().__init__()
        if not isinstance(model, (Flow, Graph)):
            raise ArgumentError("export", type(model).__name__, "expected a Graph or a Flow")
        self.what: What = cast("What", require_choice("export", "what", what, get_args(What)))
        # Only a density needs a base that fits the graph.
        self.flow = Flow(model) if isinstance(model, Graph) and what == "log_prob" else model
        graph = self.graph
        self.source = graph._outputs() if what in ("sample", "inverse") else graph._inputs()
        self.target = graph._inputs() if what in ("sample", "inverse") else graph._outputs()
        self.given = graph._conditions()

    @property
    def graph(self) -> Graph:
        """The graph, also of a flow over the reversible runner."""
        graph = self.flow if isinstance(self.flow, Graph) else self.flow.graph
        return graph.graph if isinstance(graph, Reversible) else graph

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Names of the program's inputs and outputs."""
        if self.what == "log_prob":
            outputs = ["log_prob"]
        else:
            outputs = [*self.target.names, *(() if self.what == "sample" else ("log_det",))]
        kind = "latent_" if self.what in ("sample", "inverse") else ""
        return [*(kind + name for name in self.source.names), *self.given.names], outputs

    def forward(self, *tensors: Tensor) -> Tensor | Tensors:
        """Return the result for data (or latents) followed by conditions."""
        count = len(self.source.shapes)
        values, conditions = self.source.pack(tensors[:count]), self.given.pack(tensors[count:])
        if isinstance(self.flow, Flow) and self.what == "log_prob":
            return self.flow.log_prob(values, conditions)
        direction = self.graph.inverse if self.what in ("sample", "inverse") else self.graph
        results, log_det = direction(values, conditions)
        results = results if isinstance(results, tuple) else (results,)
        if self.what == "sample":
            return cast("Tensor | Tensors", results[0] if len(results) == 1 else results)
        return (*results, log_det)

    def arguments(self, example: object) -> Tensors:
        """Return the tensors to trace with: the example, or zeros."""
        if example is None:
            return _zeros(self.flow, (*self.source.shapes, *self.given.shapes))
        if not isinstance(example, (tuple, list)) or not all(isinstance(value, Tensor) for value in example):
            raise ArgumentError("export", f"example: {type(example).__name__}", "expected a tuple of tensors")
        return tuple(example)


def export(model: Flow | Graph, what: What = "log_prob", *, example: Sequence[Tensor] | None = None) -> ExportedProgram:
    """Export a model in evaluation mode with ``torch.export``, for any batch size; the model does not change.

    Save the program with ``torch.export.save``, and run it with ``program.module()(x, c)``. See also
    :func:`export_onnx` and, for a compiled package, :func:`export_aoti`.

    Arguments:
        model: Flow, or graph, which gets a standard normal base density.
        what: Function to export. ``"log_prob"`` (default): log-density from data and conditions; ``"sample"``: data
            from latents, which the caller draws from the base and scales by a temperature, and conditions;
            ``"forward"``, ``"inverse"``: the directions of the graph, with the log-determinant last.
        example: Data (or latents) and conditions to trace with, with a batch size of at least two. Default: zeros.

    Returns:
        The exported program.

    Raises:
        GraphError: If a layer can't be exported; the message names it.

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
    return _trace(program, program.arguments(example))


def export_onnx(
    model: Flow | Graph, path: str | Path, what: What = "log_prob", *, example: Sequence[Tensor] | None = None
) -> None:
    """Export a model to an ONNX file, for any batch size; needs the ``onnx`` extra (onnx, onnxscript).

    Arguments:
        model: Flow or graph.
        path: Path of the file.
        what: Function to export; see :func:`export`. Default: ``"log_prob"``.
        example: Tensors to trace with; see :func:`export`. Default: zeros.

    Raises:
        DependencyError: If a package of the extra is not installed.
        GraphError: If a layer can't be exported; the message names it.

    Example:
        >>> import invgraph as ig
        >>> ig.export_onnx(flow, "log_prob.onnx")  # doctest: +SKIP
    """
    _require_path(path)
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError("export_onnx", "onnxscript is not installed", "pip install 'invgraph[onnx]'") from error
    program = Program(model, what)
    exported = _trace(program, program.arguments(example))
    inputs, outputs = program.names
    try:
        with torch.no_grad():
            written = _onnx(exported, input_names=inputs, output_names=outputs)
    except Exception as error:  # the exporter raises errors of many classes; ours names the layer
        with torch.no_grad(), evaluating(program):
            raise _explain(program, "ONNX", error, then=_onnx) from error
    assert written is not None
    written.save(str(path))


def export_aoti(
    model: Flow | Graph, path: str | Path, what: What = "log_prob", *, example: Sequence[Tensor] | None = None
) -> str:
    """Export a model to an AOTInductor package (``.pt2``) of machine code, for any batch size; needs a C++ compiler.

    Load it with ``torch._inductor.aoti_load_package(path)``.

    Arguments:
        model: Flow or graph.
        path: Path of the package.
        what: Function to export; see :func:`export`. Default: ``"log_prob"``.
        example: Tensors to trace with; see :func:`export`. Default: zeros.

    Returns:
        Path of the package.

    Raises:
        GraphError: If a layer can't be exported; the message names it.

    Example:
        >>> import invgraph as ig
        >>> ig.export_aoti(flow, "log_prob.pt2")  # doctest: +SKIP
    """
    _require_path(path)
    program = Program(model, what)
    exported = _trace(program, program.arguments(example))
    return aoti_package(exported, str(path))


def _require_path(path: object) -> None:
    if not isinstance(path, (str, Path)):
        raise ArgumentError("export", f"path: {type(path).__name__}", "path must be a str or Path")
    require_regular("export", as_path("export", path), "nothing was written")


def _trace(program: nn.Module, arguments: Tensors) -> ExportedProgram:
    with torch.no_grad(), evaluating(program):
        try:
            return _program(program, arguments)
        except Exception as error:  # torch raises errors of many classes here; ours names the layer
            raise _explain(program, "torch.export", error) from error


def _program(module: nn.Module, arguments: Tensors) -> ExportedProgram:
    sizes = tuple({0: torch.export.Dim("batch", min=1)} for _ in arguments)
    shapes = sizes if isinstance(module, torch.fx.GraphModule) else {"tensors": sizes}
    return torch.export.export(module, arguments, dynamic_shapes=shapes)


def _onnx(exported: ExportedProgram, **names: Any) -> torch.onnx.ONNXProgram | None:
    return torch.onnx.export(_folded(exported), (), dynamo=True, verbose=False, optimize=True, **names)


def _folded(exported: ExportedProgram) -> ExportedProgram:
    """Return the program with constants in place of what no input reaches."""
    arguments, _ = cast("tuple[Tensors, Any]", exported.example_inputs)
    if any(node.op == "get_attr" for node in exported.graph.nodes):
        exported = exported.run_decompositions({})  # blocks without autocast become operations among the others
    return _program(_fold(exported.module()), arguments)


def _fold(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Put buffers in place of what no input reaches, such as matrix exponentials, for which ONNX has no operators."""
    known: dict[torch.fx.Node, Any] = {}
    folded: dict[torch.fx.Node, torch.fx.Node] = {}

    def read(node: torch.fx.Node) -> torch.fx.Node:
        if not isinstance(known.get(node), Tensor) or node.op == "get_attr":
            return node
        if node not in folded:
            module.register_buffer(f"folded_{len(folded)}", known[node].clone())
            with module.graph.inserting_after(node):
                folded[node] = module.graph.get_attr(f"folded_{len(folded)}")
        return folded[node]

    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            known[node] = operator.attrgetter(str(node.target))(module)
        elif node.op == "call_function" and _is_fixed(node.target) and all(n in known for n in node.all_input_nodes):
            args, kwargs = (torch.fx.map_arg(part, known.__getitem__) for part in (node.args, node.kwargs))
            known[node] = node.target(*args, **kwargs)
        elif node.op == "call_module":  # checks of the inputs, which belong to the program that this was made from
            module.graph.erase_node(node)
        else:
            node.args, node.kwargs = (torch.fx.map_arg(part, read) for part in (node.args, node.kwargs))
    for node in reversed(known):  # first those that read others: only they and nodes without a use are left
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()
    return module


def _is_fixed(function: Any) -> bool:
    """True for a function that always returns the same for the same arguments, and changes none of them."""
    schema = getattr(function, "_schema", None)
    return torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()) and not (schema and schema.is_mutable)


def _explain(
    program: Any, tool: str, error: Exception, then: Callable[[ExportedProgram], object] = lambda exported: None
) -> GraphError:
    """Return an error that names the first layer that can't be exported on its own, if there is one."""
    for name, layer in program.graph.layers.items():
        if not isinstance(layer, Invertible):
            continue
        try:
            then(_export_layer(layer, program.what in ("sample", "inverse")))
        except Exception as own:
            where = f"node {name!r} ({type(layer).__name__})"
            return GraphError(where, f"export with {tool}", f"this layer can't be exported: {_reason(own)}")
    return GraphError("export", f"export with {tool}", f"the export failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _export_layer(layer: Invertible, inverse: bool) -> ExportedProgram:
    shapes = layer.out_shapes if inverse else layer.in_shapes
    return _program(_Layer(layer, inverse, len(shapes)), _zeros(layer, (*shapes, *layer.cond_shapes)))


def _zeros(model: nn.Module, shapes: Iterable[Shape]) -> Tensors:
    """Return three rows of zeros of each shape, in dtype and on the device of a model."""
    reference = floating_tensor(model)
    reference = torch.empty(0) if reference is None else reference
    return tuple(reference.new_zeros(3, *shape) for shape in shapes)


class _Layer(nn.Module):
    """One direction of a layer on separate tensors."""

    def __init__(self, layer: Invertible, inverse: bool, count: int) -> None:
        super().__init__()
        self.layer, self.inverse, self.count = layer, inverse, count

    def forward(self, *tensors: Tensor) -> Any:
        direction = self.layer.inverse if self.inverse else self.layer
        return direction(tensors[: self.count], tensors[self.count :])
