"""One pass through a graph that keeps every value and every node's log-determinant, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invgraph.core.invertible import Result
from invgraph.core.wrappers import Inverse
from invgraph.graph.run import Slots, fill, gather, run
from invgraph.graph.schedule import Step
from invgraph.shapes import Tensors


@dataclass(frozen=True)
class Trace:
    """Values of one pass through a graph, by name; see :meth:`invgraph.Graph.trace`.

    Attributes:
        values: Every value: inputs, conditions, features, and what the nodes make, ``name[0]``, ``name[1]``, ... where
            a node makes several. A value has the same name in both directions. The values inside a nested graph are
            called ``node.name``.
        log_dets: Log-determinant of every invertible node, of shape ``(B,)``, in the order of the pass. Those without a
            dot add up to that of the graph, and those of ``node.name`` to that of ``node``.
        outputs: Outputs of the graph, in the structure of its declaration.
        log_det: Log-determinant of the graph.
    """

    values: dict[str, Tensor]
    log_dets: dict[str, Tensor]
    outputs: Any
    log_det: Tensor


def record(
    graph: Any, values: Tensors, cs: Tensors, *, inverse: bool, found: tuple[dict[str, Tensor], ...], prefix: str = ""
) -> Result:
    """Run one direction of a graph on checked values, and note its values and log-determinants.

    Arguments:
        graph: The graph. A graph in one of its nodes is run once more, to look inside, with the same noise.
        values: What enters.
        cs: The conditions.
        inverse: The direction.
        found: Values and log-determinants by name; changed.
        prefix: Text before each name.
    """
    schedule = (graph.inverse_schedule if inverse else graph.forward_schedule).keep_everything()
    names = graph.forward_schedule.value_names()
    kept, log_dets = found
    start: list[_Start] = []

    def before(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
        start[:] = [_Start(layer, values[0])] if isinstance(_inside(layer), type(graph)) else []

    def after(step: Step, layer: Any, slots: Slots, log_det: Tensor | None) -> None:
        if log_det is None:
            return
        name = f"{prefix}{schedule.names[step.layer]}"
        log_dets[name] = log_det
        for again in start:
            again.restore()
            given = gather(slots, step.inputs), gather(slots, step.conditions)
            back = inverse if layer is again.inner else not inverse
            record(again.inner, *given, inverse=back, found=found, prefix=f"{name}.")

    slots = fill(schedule, values, cs)
    result = run(schedule, tuple(graph.layers.values()), slots, before=before, after=after)
    kept.update((f"{prefix}{names[slot]}", value) for slot, value in enumerate(slots) if value is not None)
    return result


class _Start:
    """Start of a call in training: the random numbers, and the buffers that the call changes.

    Run again from there, a graph returns the same and leaves the same behind.
    """

    def __init__(self, layer: Any, like: Tensor) -> None:
        self.inner = _inside(layer)
        self._is_training = any(part.training for part in self.inner.modules())
        if not self._is_training:
            return
        self._random = torch.get_rng_state()
        self._on_gpu = (like.device, torch.cuda.get_rng_state(like.device)) if like.is_cuda else None
        self._values = [(buffer, buffer.clone()) for buffer in self.inner.buffers()]

    def restore(self) -> None:
        """Go back; not counted as a change of the buffers, which autograd may have kept."""
        if not self._is_training:
            return
        torch.set_rng_state(self._random)
        if self._on_gpu is not None:
            device, state = self._on_gpu
            torch.cuda.set_rng_state(state, device)
        for buffer, value in self._values:
            if not torch.equal(buffer, value):
                buffer.data.copy_(value)


def _inside(layer: Any) -> Any:
    return layer.module if isinstance(layer, Inverse) else layer
