"""What a checkpoint must fit: each module of a network in a line of words, and how two networks differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from invgraph.core.ports import Ports
from invgraph.graph.graph import Graph

Fingerprint = dict[str, str]
"""By the path of a module: its class, its arguments as ``repr`` tells them, and of a graph's node what it reads."""

_SHOWN = 20


def fingerprint(module: nn.Module) -> Fingerprint:
    """The architecture: layers, shapes, wiring, by node name; the same in every process and on every device."""
    lines: Fingerprint = {}
    reads: dict[str, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        told = _told(part)
        if isinstance(part, Graph):
            told = _graph(part)
            reads.update(_reads(part, f"{path}.layers." if path else "layers."))
        lines[path] = f"{told} of {reads[path]}" if path in reads else told
    return lines


def upgrade_nested(architecture: Fingerprint) -> tuple[Fingerprint, list[str]]:
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
            upgraded[drop_module(path, prefixes)] = f"{graph} of {reads}" if reads else graph
        elif path.removesuffix(".module") not in wrapped:
            upgraded[drop_module(path, prefixes)] = line
    return upgraded, prefixes


def drop_module(name: str, prefixes: Sequence[str]) -> str:
    """Return the name of a tensor or module without the ``module.`` after each of these prefixes."""
    for prefix in sorted(prefixes, key=len, reverse=True):
        if name.startswith(f"{prefix}module."):
            name = prefix + name.removeprefix(f"{prefix}module.")
    return name


def tensor_lines(state: Mapping[str, object]) -> Fingerprint:
    """Shape and dtype of each tensor of a state, by its name."""
    return {
        name: f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }


def differences(saved: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The lines of modules or tensors that are not the same: with ``-`` as in the file, with ``+`` as here.

    What lies inside a module that is missing or of another class is left out.
    """
    found: list[str] = []
    told: set[str] = set()
    for path in dict.fromkeys((*here, *saved)):
        before, after = saved.get(path), here.get(path)
        if before == after or any(outer in told for outer in _outers(path)):
            continue
        if before is None or after is None or before.split("(")[0] != after.split("(")[0]:
            told.add(path)
        found += [f"{sign} {place(path)}: {line}" for sign, line in (("-", before), ("+", after)) if line is not None]
    return found


def listed(lines: Sequence[str]) -> str:
    """The lines of a difference below each other, the first twenty; - is the file, + is here."""
    shown = [*lines[:_SHOWN], *([f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]
    return "".join(f"\n    {line}" for line in shown)


def place(path: str) -> str:
    """What a difference calls a module or tensor: nodes by their names."""
    if not path:
        return "the whole"
    return re.sub(r"(?:^|(?<=\.))(?:graph\.)?layers\.([^.\d][^.]*)", r"node '\1'", path, count=1)


def _outers(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts))]


def _told(module: nn.Module) -> str:
    # The class by its name alone: a script's own classes live in __main__ today and in a module tomorrow.
    return f"{type(module).__name__}({' '.join(module.extra_repr().split())})"


def _graph(graph: Graph) -> str:
    """What a graph takes and returns."""
    told = f"{_ports(graph._inputs())} -> {_ports(graph._outputs())}"
    conditions = graph._conditions()
    return f"Graph({told} | {_ports(conditions)})" if conditions.shapes else f"Graph({told})"


def _reads(graph: Graph, prefix: str) -> dict[str, str]:
    """For each node, by the path of its layer, the values that it reads."""
    schedule = graph.forward_schedule
    names = dict(enumerate(graph._conditions().names))
    names.update(zip(schedule.starts, graph._inputs().names, strict=True))
    nodes = list(graph.layers)
    reads: dict[str, str] = {}
    for step in schedule.steps:
        name = nodes[step.layer]
        several = len(step.outputs) > 1
        names.update((slot, f"{name}[{index}]" if several else name) for index, slot in enumerate(step.outputs))
        sides = (", ".join(names[slot] for slot in slots) for slots in (step.inputs, step.conditions))
        reads[prefix + name] = " | ".join(side for side in sides if side)
    return reads


def _ports(ports: Ports) -> str:
    values = [f"{name} {shape}" for name, shape in zip(ports.names, ports.shapes, strict=True)]
    return values[0] if ports.bare else f"[{', '.join(values)}]"
