"""FrEIA's network of nodes, run as a native graph."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.errors import ContractError, GraphError, ShapeError
from invgraph.freia.framework.loading import VERSION, renumber, warn_of_order
from invgraph.freia.framework.node import ConditionNode as ConditionNode
from invgraph.freia.framework.node import FeedForwardNode as FeedForwardNode
from invgraph.freia.framework.node import InputNode as InputNode
from invgraph.freia.framework.node import Node as Node
from invgraph.freia.framework.node import OutputNode as OutputNode
from invgraph.freia.framework.node import collect_nodes as collect_nodes
from invgraph.freia.framework.node import link
from invgraph.freia.framework.plotting import plot
from invgraph.freia.framework.wiring import as_runner, in_order
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.orders import Order
from invgraph.freia.runner import as_conditions, as_result, as_tensors
from invgraph.graph.graph import Graph
from invgraph.graph.run import Slots
from invgraph.graph.schedule import Step
from invgraph.shapes import Shape

__all__ = ["ConditionNode", "FeedForwardNode", "GraphINN", "InputNode", "Node", "OutputNode", "collect_nodes"]


class GraphINN(InvertibleModule):
    """A network of FrEIA's nodes; ``inn.graph`` is the native graph that it runs on.

    Arguments:
        node_list: All nodes, in any order. Conditions are passed in their order here.
        force_tuple_output: Return one output in a tuple as well.
        verbose: Print the network.

    Raises:
        GraphError: If the nodes do not make an invertible network.

    Example:
        >>> import torch, invgraph as ig
        >>> Ff, Fm = ig.freia.framework, ig.freia.modules
        >>> x = Ff.InputNode(4, name="x")
        >>> h = Ff.Node(x, Fm.PermuteRandom, {"seed": 0})
        >>> inn = Ff.GraphINN([x, h, Ff.OutputNode(h)])
        >>> z, log_jac = inn(torch.zeros(2, 4))
        >>> z.shape, log_jac.shape
        (torch.Size([2, 4]), torch.Size([2]))
    """

    _version = VERSION
    checkpoint_order: Order | None = None
    """For each number in the checkpoint that was loaded last, the place of its module in ``module_list``."""

    def __init__(self, node_list: Sequence[Node], force_tuple_output: bool = False, verbose: bool = False) -> None:
        in_nodes = [node for node in node_list if isinstance(node, InputNode)]
        out_nodes = [node for node in node_list if isinstance(node, OutputNode)]
        condition_nodes = [node for node in node_list if isinstance(node, ConditionNode)]
        ordered = in_order(node_list, out_nodes)
        for node in in_nodes:
            if node not in ordered:
                raise GraphError("GraphINN", f"{node!r}", "the input is not connected to any output")
        super().__init__([node.dims for node in in_nodes], [node.dims for node in condition_nodes])
        self.node_list = ordered
        self.in_nodes, self.out_nodes, self.condition_nodes = in_nodes, out_nodes, condition_nodes
        self.global_out_shapes: list[Shape] = [node.input_dims[0] for node in out_nodes]
        self.force_tuple_output = force_tuple_output
        self._bare = len(out_nodes) == 1 and not force_tuple_output
        self._runner = as_runner(ordered, in_nodes, out_nodes, condition_nodes, bare=self._bare)
        self.module_list = nn.ModuleList([node.module for node in ordered if node.module is not None])
        if verbose:
            print(self)

    @property
    def graph(self) -> Graph:
        """The native graph over the same modules."""
        return self._runner.graph

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a copy or pickle, whose nodes do not know what reads them."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        link(self.node_list)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Match the modules of a checkpoint by structure, unless it was saved here, in the order of declaration."""
        if local_metadata.get("version") != VERSION:
            self.checkpoint_order = renumber(self, state_dict, prefix)
            if self.checkpoint_order is not None:
                warn_of_order(self, self.checkpoint_order, prefix)
        else:
            self.checkpoint_order = tuple(range(len(self.module_list)))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args, **kwargs)

    def output_dims(self, input_dims: Any = None) -> list[Shape]:
        return self.global_out_shapes

    def forward(
        self,
        x_or_z: Any = None,
        c: Any = None,
        rev: bool = False,
        jac: bool = True,
        intermediate_outputs: bool = False,
        x: Any = None,
    ) -> Any:
        """Return outputs and log-determinant of one direction.

        Arguments:
            x_or_z: Tensor, tuple or list: the inputs, or with ``rev`` the outputs.
            c: Tensor, tuple or list: the conditions, in the order of the nodes.
            rev: Run the inverse.
            jac: False to skip log-determinants that take time to compute; the sum then contains only the others.
            intermediate_outputs: Return two dicts instead: values by ``(node, index)``, log-determinants by node.
            x: Old name of ``x_or_z``.
        """
        if x is not None:
            warnings.warn("GraphINN(x=...) is now x_or_z; pass the input without its name", stacklevel=2)
            x_or_z = x
        xs, cs = as_tensors(x_or_z), as_conditions(c)
        if len(cs) != len(self.condition_nodes):
            given, count = f"{len(cs)} conditions", len(self.condition_nodes)
            names = ", ".join(repr(node.name) for node in self.condition_nodes) or "none"
            raise ShapeError(type(self).__name__, given, f"expected {count}: {names}")
        if intermediate_outputs:
            return self._intermediate(xs, cs, rev, jac)
        values, log_jac = self._runner(self.module_list, xs, cs, rev=rev, jac=jac)
        bare = len(values) == 1 and not self.force_tuple_output
        return as_result(values[0] if bare else values, log_jac)

    def _intermediate(self, xs: Any, cs: Any, rev: bool, jac: bool) -> tuple[dict[Any, Any], dict[Node, Any] | None]:
        """Return the value of each output of each node, and each node's log-determinant."""
        nodes = [node for node in self.node_list if node.module is not None]
        values: dict[Any, Tensor | None] = {}
        log_jacs: dict[Node, Any] = {}

        def record(step: Step, layer: Any, slots: Slots, log_jac: Tensor | None) -> None:
            node = nodes[step.layer]
            values.update({(node, i): slots[slot] for i, slot in enumerate(step.outputs)})
            log_jacs[node] = xs[0].new_zeros(len(xs[0])) if log_jac is None else log_jac

        ends, _ = self._runner(self.module_list, xs, cs, rev=rev, jac=jac, after=record)
        first, last = (self.out_nodes, self.in_nodes) if rev else (self.in_nodes, self.out_nodes)
        values.update({(node, 0): value for node, value in zip(first, xs, strict=True)})
        values.update({(node, 0): value for node, value in zip(self.condition_nodes, cs, strict=True)})
        values.update({(node, 0): value for node, value in zip(last, ends, strict=True)})
        return values, log_jacs if jac else None

    def _check_output(self, node: Node, mod_out: Any, jac: bool, rev: bool) -> tuple[Any, Any]:
        """Return what a node's module returned, with a log-determinant of shape ``(B,)``.

        It is for subclasses whose ``forward`` has a loop of its own over ``node_list``.
        """
        modules = [other for other in self.node_list if other.module is not None]
        layer: Any = list(self.graph.layers.values())[modules.index(node)]
        values, log_jac = (layer if jac else layer.with_module(layer.module, jac=False)).as_native(mod_out)
        wanted = len(node.inputs if rev else node.outputs)
        if len(values) != wanted:
            given = f"{node!r} returned {len(values)} values"
            raise ContractError(type(self).__name__, given, f"a layer of these shapes returns {wanted}")
        return values, log_jac

    @torch.no_grad()
    def log_jacobian_numerical(self, x: Any, c: Any = None, rev: bool = False, h: float = 1e-4) -> Tensor:
        """Return the log-determinant from finite differences of step ``h``; slow, for tests."""
        xs = as_tensors(x)
        flat = torch.cat([value.flatten(1) for value in xs], dim=1)
        sizes = [value[0].numel() for value in xs]

        def run(moved: Tensor) -> Tensor:
            parts = [part.reshape(value.shape) for part, value in zip(moved.split(sizes, dim=1), xs, strict=True)]
            return torch.cat([value.flatten(1) for value in as_tensors(self(parts, c=c, rev=rev, jac=False)[0])], dim=1)

        columns = []
        for index in range(flat.shape[1]):
            step = torch.zeros_like(flat)
            step[:, index] = h
            columns.append((run(flat + step) - run(flat - step)) / (2 * h))
        log_det: Tensor = torch.linalg.slogdet(torch.stack(columns, dim=2)).logabsdet
        return log_det

    def plot(self, path: str | os.PathLike[str], filename: str) -> None:
        """Draw the network into a folder: ``filename`` in graphviz's language, and ``filename.pdf`` by graphviz.

        ``inn.graph.draw("graph.svg")`` draws it without graphviz.

        Arguments:
            path: Folder.
            filename: Name of the first file.
        """
        plot(self.graph, path, filename)

    def get_node_by_name(self, name: str) -> Node | None:
        """Return the first node of that name; None if there is none."""
        return next((node for node in (*self.node_list, *self.condition_nodes) if node.name == name), None)

    def get_module_by_name(self, name: str) -> nn.Module | None:
        """Return the module of the first node of that name; None if there is none."""
        node = self.get_node_by_name(name)
        return None if node is None else node.module
