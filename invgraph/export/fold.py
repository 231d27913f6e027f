"""Constants in place of what no input of a program reaches."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from invgraph.export.trace import as_program
from invgraph.shapes import Tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def folded_program(exported: ExportedProgram) -> ExportedProgram:
    """Return the program with constants in place of what no input reaches."""
    arguments, _ = cast("tuple[Tensors, Any]", exported.example_inputs)
    if any(node.op == "get_attr" for node in exported.graph.nodes):
        exported = exported.run_decompositions({})  # blocks without autocast become operations among the others
    return as_program(_fold(exported.module()), arguments)


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
