"""One function of a flow or graph on separate tensors: what is exported, and the tensors that it is traced with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice
from invgraph.core.call import check_together
from invgraph.densities.bases import base_tensor
from invgraph.errors import ArgumentError, ShapeError
from invgraph.export.bases import without_validation
from invgraph.flow import Flow
from invgraph.graph.graph import Graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import floating_tensor

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
        flow = Flow(model) if isinstance(model, Graph) and what == "log_prob" else model
        self.flow = without_validation(flow) if isinstance(flow, Flow) else flow
        graph = self.graph
        self.source = graph._outputs() if self.is_inverse else graph._inputs()
        self.target = graph._inputs() if self.is_inverse else graph._outputs()
        self.given = graph._conditions()

    @property
    def graph(self) -> Graph:
        """The graph, also of a flow over the reversible runner."""
        graph = self.flow if isinstance(self.flow, Graph) else self.flow.graph
        return graph.graph if isinstance(graph, Reversible) else graph

    @property
    def is_inverse(self) -> bool:
        """True if the program runs the graph from latents to data."""
        return self.what in ("sample", "inverse")

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Names of the program's inputs and outputs, no two of which are equal."""
        kind = "latent_" if self.is_inverse else ""
        conditions = _unique(self.given.names, (), "_in")
        inputs = _unique([kind + name for name in self.source.names], conditions, "_in")
        own = {"log_prob": ["log_prob"], "sample": []}.get(self.what, ["log_det"])
        last = _unique(own, (*inputs, *conditions), "_out")
        values = () if self.what == "log_prob" else self.target.names
        return [*inputs, *conditions], [*_unique(values, (*inputs, *conditions, *last), "_out"), *last]

    def forward(self, *tensors: Tensor) -> Tensor | Tensors:
        """Return the result for data (or latents) followed by conditions."""
        count = len(self.source.shapes)
        values, conditions = self.source.pack(tensors[:count]), self.given.pack(tensors[count:])
        if isinstance(self.flow, Flow) and self.what == "log_prob":
            return self.flow.log_prob(values, conditions)
        direction = self.graph.inverse if self.is_inverse else self.graph
        results, log_det = direction(values, conditions)
        results = results if isinstance(results, tuple) else (results,)
        # In ONNX a value has one name, so one that no layer changes would be input or output, but not both.
        results = tuple([result.clone() if any(result is t for t in tensors) else result for result in results])
        if self.what == "sample":
            return cast("Tensor | Tensors", results[0] if len(results) == 1 else results)
        return (*results, log_det)

    def arguments(self, example: object) -> Tensors:
        """Return the tensors to trace with: the example, if it fits, or zeros."""
        if example is None:
            return self.zeros((*self.source.shapes, *self.given.shapes))
        if not isinstance(example, (tuple, list)) or not all(isinstance(value, Tensor) for value in example):
            raise ArgumentError("export", f"example: {type(example).__name__}", "expected a tuple of tensors")
        self._require_fitting(tuple(example))
        return tuple(example)

    def zeros(self, shapes: Iterable[Shape]) -> Tensors:
        """Return three rows of zeros of each shape, in dtype and on the device of the model, or else of its bases."""
        bases = self.flow.latents.bases if isinstance(self.flow, Flow) else None
        known = (floating_tensor(self.flow), *map(base_tensor, bases or ()))
        reference = next((tensor for tensor in known if tensor is not None), torch.empty(0))
        return tuple(reference.new_zeros(3, *shape) for shape in shapes)

    def _require_fitting(self, example: Tensors) -> None:
        """Refuse an example that the model could not be called with, or that would fix the batch size."""
        inputs, count = self.names[0], len(self.source.shapes)
        if len(example) != len(inputs):
            given = f"example: {len(example)} tensor{'' if len(example) == 1 else 's'}"
            raise ShapeError("export", given, f"expected {len(inputs)}, in this order: {', '.join(inputs)}")
        values = self.source.unpack("export, example", self.source.pack(example[:count]))
        conditions = self.given.unpack("export, example", self.given.pack(example[count:]))
        sides = ((self.source, values), (self.given, conditions))
        batch, _ = check_together("export, example", sides, floating_tensor(self.flow))
        if batch < 2:
            advice = "torch.export would take a batch size of 0 or 1 for the only one: give at least two rows"
            raise ShapeError("export", f"example: batch {batch}", advice)


def _unique(names: Sequence[str], taken: Sequence[str], suffix: str) -> list[str]:
    """Return the names, those that are taken with the suffix behind them, as often as it is needed."""
    found: list[str] = []
    for name in names:
        while name in (*taken, *found):
            name += suffix
        found.append(name)
    return found
