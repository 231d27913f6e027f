"""Fingerprints of networks, a line of text for each module, and the differences of two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from invgraph.core.call import Ports
from invgraph.core.invertible import Invertible
from invgraph.graph.graph import Graph

Fingerprint = dict[str, str]
"""Line for each module, by its path: class, arguments as in ``repr``, and, for a node, the values it reads."""

_SHOWN = 20
T = TypeVar("T")


def fingerprint(module: nn.Module) -> Fingerprint:
    """Describe layers, shapes and wiring by node name; the same in every process and on every device."""
    lines: Fingerprint = {}
    reads: dict[str, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, Invertible):  # a graph at another size is the graph that was declared
            part = part._resized_from or part
        line = _describe(part)
        if isinstance(part, Graph):
            line = _describe_graph(part)
            reads.update(_reads(part, f"{path}.layers." if path else "layers."))
        lines[path] = f"{line} of {reads[path]}" if path in reads else line
    return lines


def upgrade(
    architecture: Fingerprint, state: Mapping[str, Tensor], extra: Mapping[str, Any]
) -> tuple[Fingerprint, dict[str, Tensor], dict[str, Any]]:
    """Return the content of a checkpoint with the names of today; those of an early one differ.

    Arguments:
        architecture: Fingerprint in the file.
        state: Tensors in the file, by name.
        extra: Further state in the file, by name.
    """
    flat, prefixes = _upgrade_nested(architecture)

    def rename(name: str) -> str:
        return upgrade_holders(_drop_module(name, prefixes), flat)

    tensors, others = ({rename(name): value for name, value in part.items()} for part in (state, extra))
    return {upgrade_holders(name, flat): line for name, line in flat.items()}, tensors, others


def _upgrade_nested(architecture: Fingerprint) -> tuple[Fingerprint, list[str]]:
    """Return the architecture of an early checkpoint as it is called today, and the prefixes that lost ``module.``.

    Early versions held a nested graph in a wrapper of its own.
    """
    wrapped = [path for path, line in architecture.items() if line.startswith("Nested(")]
    prefixes = [f"{path}." for path in wrapped]
    upgraded: Fingerprint = {}
    for path, line in architecture.items():
        if path in wrapped:
            reads = line.partition(") of ")[2]
            graph = architecture[f"{path}.module"]
            upgraded[_drop_module(path, prefixes)] = f"{graph} of {reads}" if reads else graph
        elif path.removesuffix(".module") not in wrapped:
            upgraded[_drop_module(path, prefixes)] = line
    return upgraded, prefixes


_HOLDERS = ("Flow(", "Reversible(")


def upgrade_holders(name: str, architecture: Fingerprint) -> str:
    """Return the name of a tensor or module of an early checkpoint, in which flows and runners held a child ``graph``.

    Arguments:
        name: Name in the file.
        architecture: Fingerprint in the file.
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part == "graph" and architecture.get(".".join(name.split(".")[:place]), "").startswith(_HOLDERS):
            parts[place] = "model"
    return ".".join(parts)


_RUNNERS = {
    "Reversible": "model", "OptimizedModule": "_orig_mod", "DistributedDataParallel": "module", "DataParallel": "module"
}  # fmt: skip
"""Classes of modules that only run another one, and its name in them."""


def bare_name(name: str, architecture: Mapping[str, str]) -> str:
    """Return the name that a tensor or module would have without the modules that only run others around it."""
    kept: list[str] = []
    parts = name.split(".") if name else []
    for place, part in enumerate(parts):
        holder = architecture.get(".".join(parts[:place]), "").partition("(")[0]
        if _RUNNERS.get(holder) != part:
            kept.append(part)
    return ".".join(kept)


def bare(lines: Mapping[str, T], architecture: Mapping[str, str]) -> dict[str, T]:
    """Return what belongs to modules or tensors by their bare names; a runner has that of what it runs."""
    # A runner's own line comes before that of what it runs, which takes its place.
    return {bare_name(name, architecture): value for name, value in lines.items()}


def bare_lines(architecture: Fingerprint) -> Fingerprint:
    """Return a fingerprint by bare names; what a runner runs stands in its place, and so reads what the runner does."""
    found: Fingerprint = {}
    for name, line in architecture.items():
        path = bare_name(name, architecture)
        reads = found.get(path, "").partition(") of ")[2]
        found[path] = f"{line} of {reads}" if reads else line
    return found


def held_graph(architecture: Mapping[str, str]) -> str:
    """Return the path of the graph that a flow or runner holds, empty if the whole is neither."""
    path = ""
    while architecture.get(path, "").startswith(_HOLDERS):
        path = f"{path}.model" if path else "model"
    return path


def inside(lines: Mapping[str, T], path: str) -> dict[str, T]:
    """Return what belongs to one module, by its name within it."""
    if not path:
        return dict(lines)
    return {"" if name == path else name.removeprefix(f"{path}."): value for name, value in lines.items()
            if name == path or name.startswith(f"{path}.")}  # fmt: skip


def _drop_module(name: str, prefixes: Sequence[str]) -> str:
    """Return the name of a tensor or module without the ``module.`` after each of these prefixes."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if name.startswith(f"{prefix}module."):
            name = prefix + name.removeprefix(f"{prefix}module.")
    return name


def tensor_lines(state: Mapping[str, object]) -> Fingerprint:
    """Return shape and dtype of each tensor of a state, by its name; a flag was saved as a boolean at first."""
    return {
        name: f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.').replace('bool', 'uint8')}"
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }


def differences(saved: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return the lines of modules or tensors that differ: ``-`` for the file, ``+`` for the graph.

    The content of a module that is missing or has another class is omitted.
    """
    found: list[str] = []
    replaced: set[str] = set()
    for path in dict.fromkeys((*here, *saved)):
        before, after = saved.get(path), here.get(path)
        if before == after or any(outer in replaced for outer in _parents(path)):
            continue
        if before is None or after is None or before.split("(")[0] != after.split("(")[0]:
            replaced.add(path)
        lines = (("-", before), ("+", after))
        found += [f"{sign} {describe_path(path)}: {line}" for sign, line in lines if line is not None]
    return found


def format_lines(lines: Sequence[str]) -> str:
    """Join the first twenty lines of a list of differences, indented, each on a new line."""
    shown = [*lines[:_SHOWN], *([f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]
    return "".join(f"\n    {line}" for line in shown)


def describe_path(path: str) -> str:
    """Describe the path of a module or tensor in messages: nodes by their names."""
    if not path:
        return "the whole"
    return re.sub(r"(?:^|(?<=\.))(?:model\.)*layers\.([^.\d][^.]*)", r"node '\1'", path, count=1)


def _parents(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts))]


def _describe(module: nn.Module) -> str:
    # Without the module of the class: it changes when a class moves from a script, where it is __main__, to a package.
    return f"{type(module).__name__}({' '.join(module.extra_repr().split())})"


def _describe_graph(graph: Graph) -> str:
    """Describe the inputs, outputs and conditions of a graph."""
    values = f"{_describe_ports(graph._inputs())} -> {_describe_ports(graph._outputs())}"
    conditions = graph._conditions()
    return f"Graph({values} | {_describe_ports(conditions)})" if conditions.shapes else f"Graph({values})"


def _reads(graph: Graph, prefix: str) -> dict[str, str]:
    """Return the values that each node reads, by the path of its layer."""
    schedule = graph.forward_schedule
    names = schedule.value_names()
    reads: dict[str, str] = {}
    for step in schedule.steps:
        sides = (", ".join(names[slot] for slot in slots) for slots in (step.inputs, step.conditions))
        reads[prefix + schedule.names[step.layer]] = " | ".join(side for side in sides if side)
    return reads


def _describe_ports(ports: Ports) -> str:
    values = [f"{name} {shape}" for name, shape in zip(ports.names, ports.shapes, strict=True)]
    return values[0] if ports.bare else f"[{', '.join(values)}]"
