"""Loading of a saved state into a graph: all of it, the part that fits, or none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

from torch import Tensor, nn

from invgraph.checkpoint.fingerprint import (
    Fingerprint,
    bare,
    bare_lines,
    bare_name,
    describe_path,
    differences,
    fingerprint,
    format_lines,
    held_graph,
    inside,
    tensor_lines,
)
from invgraph.errors import CheckpointError
from invgraph.graph.tied import hold_the_same, kept_ties
from invgraph.torch_internals import load_state as load_into


def align(
    graph: nn.Module, architecture: Fingerprint, state: dict[str, Tensor], extra: dict[str, Any]
) -> tuple[nn.Module, Fingerprint, dict[str, Tensor], dict[str, Any]]:
    """Return the module to load into, and the file's content by the names in it, its architecture by bare ones.

    Modules that only run another one do not count, and if either the file or the module is a flow, graph meets graph.
    """
    state, extra, architecture = bare(state, architecture), bare(extra, architecture), bare_lines(architecture)
    own = fingerprint(graph)
    path = ""
    if _kind(architecture) != _kind(bare_lines(own)):
        saved, path = held_graph(architecture), held_graph(bare_lines(own))
        architecture, state, extra = (inside(part, saved) for part in (architecture, state, extra))
    target = graph.get_submodule(next(name for name in own if bare_name(name, own) == path))
    within = fingerprint(target)
    names = {bare_name(name, within): name for name in target.state_dict()}
    state, extra = ({names.get(name, name): value for name, value in part.items()} for part in (state, extra))
    return target, architecture, state, extra


def _kind(architecture: Fingerprint) -> str:
    return architecture.get("", "").partition("(")[0]


def fitting_part(
    where: str, state: dict[str, Tensor], extra: dict[str, Any], graph: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Return what fits into the graph, by name, shape and dtype, and lines that describe the rest."""
    own = graph.state_dict()
    saved, here = tensor_lines(state), tensor_lines(own)
    skipped = differences(saved, here)
    fitting = {name: tensor for name, tensor in state.items() if saved[name] == here.get(name)}
    if _other_dtypes(state, own):
        advice = "only dtypes differ: convert the graph with .to(dtype) first (-: in the file, +: here)"
        raise CheckpointError(where, "a checkpoint of other dtypes", f"{advice}:{format_lines(skipped)}")
    if skipped and not fitting:
        advice = "none of its tensors fits (-: in the file, +: here)"
        raise CheckpointError(where, "a checkpoint of another graph", f"{advice}:{format_lines(skipped)}")
    return fitting, {name: value for name, value in extra.items() if name in own}, skipped


def _other_dtypes(state: Mapping[str, object], own: Mapping[str, object]) -> bool:
    """True if two states have tensors of the same names and shapes, but not of the same dtypes."""
    saved, here = tensor_lines(state), tensor_lines(own)

    def shapes(lines: Mapping[str, str]) -> dict[str, str]:
        return {name: line.rpartition(" ")[0] for name, line in lines.items()}

    return saved != here and shapes(saved) == shapes(here)


def require_same(where: str, architecture: Fingerprint, state: Mapping[str, Tensor], graph: nn.Module) -> None:
    """Raise CheckpointError with a list of differences unless the graph equals the saved one."""
    layers = differences(architecture, bare_lines(fingerprint(graph)))
    tensors = differences(tensor_lines(state), tensor_lines(graph.state_dict()))
    advice = "build the graph like the saved one (-: in the file, +: here)"
    if layers and not tensors:
        advice = f"{advice}, or pass strict=False: the tensors agree"
    elif _other_dtypes(state, graph.state_dict()):
        advice = "convert the graph with .to(dtype) first, nothing is cast silently (-: in the file, +: here)"
    elif tensors:
        advice = f"{advice}, or pass strict=False to load the tensors that fit"
    if layers or tensors:
        raise CheckpointError(where, "a checkpoint of another graph", f"{advice}:{format_lines(layers or tensors)}")


def _require_tied(where: str, graph: nn.Module, state: Mapping[str, Any]) -> None:
    """Refuse a state with different values for one tensor of several names, as all but one of them would be lost."""
    first: dict[int, str] = {}
    every = (graph.named_parameters(remove_duplicate=False), graph.named_buffers(remove_duplicate=False))
    for name, tensor in chain(*every):
        value = state.get(name)
        if not isinstance(value, Tensor):
            continue
        other = first.setdefault(id(tensor), name)
        if other != name and not hold_the_same(value, state[other]):
            given = f"different values of {describe_path(other)} and {describe_path(name)}"
            raise CheckpointError(where, given, "here these two are one tensor: build the graph like the saved one")


def load_state(where: str, graph: nn.Module, state: dict[str, Any], *, strict: bool) -> None:
    """Load the state, all of it if ``strict``, or restore the previous one if a layer refuses it."""
    _require_tied(where, graph, state)
    before = graph.state_dict()
    assign = any(isinstance(value, Tensor) and value.is_meta for value in before.values())  # nothing to copy into
    before = {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) and not value.is_meta else value
        for name, value in before.items()
    }
    try:
        with kept_ties(graph) if assign else nullcontext():
            load_into(graph, state, strict=strict, assign=assign)
    except Exception as error:  # a layer may raise anything, and the graph must not stay half loaded
        with kept_ties(graph) if assign else nullcontext():
            graph.load_state_dict(before, assign=assign)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(where, reason, "a layer refused its state: nothing was loaded") from error
