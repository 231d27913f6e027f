"""Tables of a graph's nodes: as ``print(graph)`` shows them, and with what each node costs on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.draw.table import lines_of
from invgraph.errors import GraphError
from invgraph.graph.run import Slots, fill, run
from invgraph.graph.schedule import Schedule, Step
from invgraph.shapes import Tensors

Rows = list[tuple[str, ...]]
_HEAD = ("node", "layer", "reads", "conditions", "shapes", "parameters")


def table(layers: nn.ModuleDict, schedule: Schedule) -> str:
    """Return the table: totals, inputs, conditions, nodes in forward order, and outputs, one per line."""
    return _total(layers, schedule) + "\n" + _format([_HEAD, *_rows(layers, schedule)], numbers=(5,))


def _total(layers: nn.ModuleDict, schedule: Schedule) -> str:
    count = len(schedule.steps)
    return f"Graph of {count} node{'' if count == 1 else 's'}, {count_parameters(layers):,} parameters"


def _rows(layers: nn.ModuleDict, schedule: Schedule) -> Rows:
    names = schedule.value_names()
    rows: Rows = [
        (name, ports.kind, "", "", str(shape), "")
        for ports in (schedule.source, schedule.conditions)
        for name, shape in zip(ports.names, ports.shapes, strict=True)
    ]
    named = list(layers.items())
    for step in schedule.steps:
        name, layer = named[step.layer]
        shapes = "feature"
        if isinstance(layer, Invertible):
            shapes = " -> ".join(", ".join(map(str, side)) for side in (layer.in_shapes, layer.out_shapes))
        read, given = (", ".join(names[slot] for slot in side) for side in (step.inputs, step.conditions))
        count = count_parameters(layer)
        rows.append((name, type(layer).__name__, read, given, shapes, f"{count:,}" if count else ""))
    for name, shape in zip(schedule.target.names, schedule.target.shapes, strict=True):
        rows.append((name, "output", "", "", str(shape), ""))
    return rows


def _format(rows: Rows, numbers: Sequence[int]) -> str:
    """Return rows as lines; empty columns are left out, and columns of numbers are aligned on the right."""
    keep = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:]) or column in numbers]
    shown = [[row[column] for column in keep] for row in rows]
    return "\n".join(lines_of(shown, {place for place, column in enumerate(keep) if column in numbers}))


def count_parameters(*modules: nn.Module) -> int:
    """Return the number of elements of all parameters; tied ones count once."""
    found = dict.fromkeys(parameter for module in modules for parameter in module.parameters())
    return sum(parameter.numel() for parameter in found)


def fraction(part: float, total: float) -> float:
    """Return a part of a total; 0 of a total that is zero."""
    return part / total if total else 0.0


class NodeSummary(NamedTuple):
    """Cost of one node on a batch.

    Attributes:
        name: Name of the node.
        parameters: Number of its parameters.
        operations: Operations per sample of its matrix products and convolutions, two for each multiply-add.
        kept: Bytes that it keeps for the backward pass of the whole batch, without parameters and without what an
            earlier node keeps already.
        log_det: Mean log-determinant over the batch, in nats per sample; 0 for a conditioning network.
        share: Log-determinant relative to the sum of the absolute log-determinants of all nodes.
    """

    name: str
    parameters: int
    operations: float
    kept: int
    log_det: float
    share: float


@dataclass(frozen=True)
class Summary:
    """Result of ``graph.summary(x, c)``, which prints as a table.

    Attributes:
        nodes: Costs of the nodes, in forward order.
        text: The table.
    """

    nodes: tuple[NodeSummary, ...]
    text: str

    def __getitem__(self, name: str) -> NodeSummary:
        """Return the costs of a node, by its name."""
        found = {node.name: node for node in self.nodes}
        if not isinstance(name, str) or name not in found:
            raise GraphError("Summary", f"name {name!r}", f"no such node; there are {', '.join(found)}")
        return found[name]

    def __repr__(self) -> str:
        return self.text


def summarize(layers: nn.ModuleDict, schedule: Schedule, xs: Tensors, cs: Tensors) -> Summary:
    """Run a schedule twice on checked values, in evaluation mode, and return what each node costs."""
    parts = tuple(layers.values())
    operations, log_dets = _operations(schedule, parts, xs, cs)
    kept = _kept(schedule, parts, xs, cs)
    total = sum(map(abs, log_dets), 0.0)
    batch = xs[0].shape[0]
    nodes = tuple(
        NodeSummary(schedule.names[step.layer], count_parameters(parts[step.layer]), operations[k] / batch, kept[k],
                    log_dets[k], fraction(log_dets[k], total))
        for k, step in enumerate(schedule.steps)
    )  # fmt: skip
    whole = NodeSummary(
        "(all)", count_parameters(layers), sum(operations) / batch, sum(kept), sum(log_dets), fraction(total, total)
    )
    rows = _rows(layers, schedule)
    first = len(schedule.source.names) + len(schedule.conditions.names)
    cells = [("", "", "", "")] * first + [_cells(node) for node in nodes]
    cells += [("", "", "", "")] * len(schedule.target.names)
    head = (*_HEAD, "operations", "kept", "log-det", "share")
    lines: Rows = [head, *((*row, *more) for row, more in zip(rows, cells, strict=True))]
    lines.append(("(all)", "", "", "", "", f"{whole.parameters:,}", *_cells(whole)))
    text = _format(lines, numbers=(5, 6, 7, 8, 9))
    return Summary(nodes, f"{_total(layers, schedule)}; operations per sample, memory for a batch of {batch}\n{text}")


def _cells(node: NodeSummary) -> tuple[str, ...]:
    kept = _quantity(node.kept, 1024, ("B", "KiB", "MiB", "GiB")) if node.kept else ""
    operations = _quantity(node.operations, 1000, ("", "k", "M", "G")) if node.operations else ""
    return operations, kept, f"{node.log_det:.3f}", f"{100 * node.share:.0f} %"


def _quantity(value: float, step: int, units: Sequence[str]) -> str:
    place = 0
    while value >= step and place < len(units) - 1:
        value, place = value / step, place + 1
    return f"{value:.3g} {units[place]}".rstrip() if value < 1000 else f"{value:.0f} {units[place]}".rstrip()


def _operations(
    schedule: Schedule, layers: tuple[nn.Module, ...], xs: Tensors, cs: Tensors
) -> tuple[list[int], list[float]]:
    """Return operations of the whole batch, and mean log-determinants, of each step."""
    from torch.utils.flop_counter import FlopCounterMode  # here, because `import invgraph` is to stay quick

    counts: list[int] = []
    log_dets: list[float] = []
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]

    def after(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
        counts.append(counter.get_total_flops())
        log_dets.append(0.0 if log_det is None else log_det.mean().item())

    with torch.no_grad(), counter:
        run(schedule, layers, fill(schedule, xs, cs), after=after)
    return [now - before for before, now in zip([0, *counts], counts, strict=False)], log_dets


class _NoModules:
    """Place of the counter's tracker of modules, which hooks into autograd and fails in layers that differentiate."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass


def _kept(schedule: Schedule, layers: tuple[nn.Module, ...], xs: Tensors, cs: Tensors) -> list[int]:
    """Return the bytes that each step keeps for the backward pass."""
    seen = {
        tensor.untyped_storage().data_ptr() for layer in layers for tensor in (*layer.parameters(), *layer.buffers())
    }
    kept: list[int] = []
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if not tensor.data_ptr():  # a derivative that is zero everywhere takes no memory
            return tensor
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept[-1] += storage.nbytes()
            alive.append(tensor.detach())  # so that its address is not given to another tensor
        return tensor

    def before(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
        kept.append(0)

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(schedule, layers, fill(schedule, xs, cs), before=before)
    return kept
