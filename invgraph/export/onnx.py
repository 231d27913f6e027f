"""ONNX programs, whose inputs and outputs have the names that the graph gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from invgraph.export.fold import folded_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def onnx_program(exported: ExportedProgram) -> torch.onnx.ONNXProgram:
    """Return the ONNX program of an exported one."""
    written = torch.onnx.export(folded_program(exported), (), dynamo=True, verbose=False, optimize=True)
    assert written is not None
    return written


def name_ends(written: torch.onnx.ONNXProgram, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name inputs and outputs; values inside that have one of these names get another, as no two may be equal."""
    graph: Any = written.model.graph
    ends = dict(zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True))
    others = [value for value in _values(graph) if value not in ends]
    taken = {*(value.name for value in others), *ends.values()}
    for value in others:
        if value.name in ends.values():
            value.name = _free(value.name, taken)
            taken.add(value.name)
    for value, name in ends.items():
        value.name = name


def _values(graph: Any) -> Iterable[Any]:
    """Yield the values inside a graph: results of its nodes, also of nested graphs, and constants."""
    yield from list(graph.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_inner"
    return name
