"""FrEIA's chain of layers, run as a native graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from invgraph.errors import ArgumentError, GraphError, ShapeError
from invgraph.freia.contract import as_ints, output_dims
from invgraph.freia.framework.node import ConditionNode, InputNode, Node, OutputNode, built, require_dims
from invgraph.freia.framework.wiring import as_runner
from invgraph.freia.modules.base import InvertibleModule
from invgraph.freia.runner import Runner, as_conditions, as_result, as_tensors
from invgraph.graph.graph import Graph
from invgraph.shapes import Shape

__all__ = ["SequenceINN"]


class SequenceINN(InvertibleModule):
    """A chain of layers, one appended after the other; ``inn.graph`` is the native graph that it runs on.

    Arguments:
        dims: Sizes of the input, without the batch.
        force_tuple_output: Return the output in a tuple.

    Attributes:
        shapes: Shapes of the input and of each layer's output.
        conditions: For each layer, which condition of a call it is given; None for no condition.

    Example:
        >>> import torch, invgraph as ig
        >>> inn = ig.freia.framework.SequenceINN(4)
        >>> inn.append(ig.freia.modules.PermuteRandom, seed=0)
        >>> z, log_jac = inn(torch.zeros(2, 4))
        >>> len(inn), inn.shapes, log_jac
        (1, [(4,), (4,)], tensor([0., 0.]))
    """

    def __init__(self, *dims: int, force_tuple_output: bool = False) -> None:
        shape: Shape = tuple(as_ints(dims))
        super().__init__([shape])
        self.shapes: list[Shape] = [shape]
        self.conditions: list[int | None] = []
        self.module_list = nn.ModuleList()
        self.force_tuple_output = force_tuple_output
        self._condition_shapes: list[Shape | None] = []
        self._built: Runner | None = None

    def append(self, module_class: Any, cond: int | None = None, cond_shape: Any = None, **kwargs: Any) -> None:
        """Append a layer.

        Arguments:
            module_class: Class or function that makes the module: ``module_class(dims_in, dims_c=..., **kwargs)``;
                or a module that is built already.
            cond: Place of the layer's condition in the list of a call; None for no condition.
            cond_shape: Shape of that condition.
            kwargs: Further arguments of the module.
        """
        dims_in = [self.shapes[-1]]
        shape = None if cond is None else self._condition_shape(cond, cond_shape)
        dims_c = {} if shape is None else {"dims_c": [shape]}
        module = built("SequenceINN.append", module_class, kwargs, dims_in, **dims_c)
        outputs = output_dims(module, dims_in)
        if len(outputs) != 1:
            given = f"{type(module).__name__} with {len(outputs)} outputs"
            raise GraphError("SequenceINN.append", given, "a chain takes layers of one output: write a GraphINN")
        self.conditions.append(cond)
        self._condition_shapes.append(shape)
        self.module_list.append(module)
        self.shapes.append(outputs[0])
        self._built = None

    @staticmethod
    def _condition_shape(cond: int, cond_shape: Any) -> Shape:
        if cond_shape is None:
            given = f"cond={cond} without cond_shape"
            raise ArgumentError("SequenceINN.append", given, "write append(Module, cond=0, cond_shape=(10,), ...)")
        sizes = (cond_shape,) if isinstance(cond_shape, (int, float)) else cond_shape
        return tuple(as_ints(sizes))

    @property
    def graph(self) -> Graph:
        """The native graph over the same modules."""
        return self._runner.graph

    @property
    def _runner(self) -> Runner:
        return self._runner_of(self.module_list)

    def _runner_of(self, modules: nn.ModuleList) -> Runner:
        if self._built is None or not self._built.fits(modules):
            self._built = self._build()
        return self._built

    def _build(self) -> Runner:
        """Make a node of each module; a condition that is declared with several shapes becomes several nodes."""
        given: dict[tuple[int, Shape], ConditionNode] = {}
        start = InputNode(*self.shapes[0], name="x")
        node: Node = start
        nodes: list[Node] = [start]
        for index, module in enumerate(self.module_list):
            cond, shape = self.conditions[index], self._condition_shapes[index]
            condition = None
            if cond is not None and shape is not None:
                condition = given.setdefault((cond, shape), ConditionNode(*shape, name=f"c{cond}"))
            name = f"{type(module).__name__.lower()}_{index}"
            node = _Built(node, module, self.shapes[index + 1], condition, name)
            nodes.append(node)
        end = OutputNode(node)
        runner = as_runner(nodes, [start], [end], list(given.values()), bare=not self.force_tuple_output)
        return Runner(runner.graph, tuple(place for place, _ in given))

    def __getitem__(self, item: int | slice) -> Any:
        """Return a layer; for a slice, a chain of the same layers."""
        if not isinstance(item, slice):
            return self.module_list[item]
        places = range(len(self))[item]
        if places.step != 1:
            raise GraphError("SequenceINN", f"the slice {item}", "a chain can only be cut where its shapes fit: step 1")
        part = SequenceINN(*self.shapes[places.start], force_tuple_output=self.force_tuple_output)
        part.module_list.extend(self.module_list[place] for place in places)
        part.shapes = self.shapes[places.start : places.start + len(places) + 1]
        part.conditions = [self.conditions[place] for place in places]
        part._condition_shapes = [self._condition_shapes[place] for place in places]
        return part

    def __setitem__(self, item: int, module: nn.Module) -> None:
        """Replace a layer by one of the same shapes, built already."""
        place = range(len(self))[item]
        dims_in, dims_c = [self.shapes[place]], self._condition_shapes[place]
        require_dims("SequenceINN", module, dims_in, [] if dims_c is None else [dims_c])
        found = output_dims(module, dims_in)
        if found != [self.shapes[place + 1]]:
            given = f"{type(module).__name__} with outputs of shapes {', '.join(map(str, found))}"
            raise GraphError("SequenceINN", given, f"layer {place} has an output of shape {self.shapes[place + 1]}")
        self.module_list[place] = module

    def __len__(self) -> int:
        return len(self.module_list)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.module_list)

    def output_dims(self, input_dims: Any = None) -> list[Shape]:
        return [self.shapes[-1]]

    def forward(self, x_or_z: Any, c: Any = None, rev: bool = False, jac: bool = True) -> Any:
        """Return output and log-determinant of one direction.

        Arguments:
            x_or_z: Tensor, or a list or tuple of one: the input, or with ``rev`` the output.
            c: List of the conditions; entries that no layer reads may be None.
            rev: Run the inverse.
            jac: False to skip log-determinants that take time to compute; the sum then contains only the others.
        """
        cs, modules = as_conditions(c), self.module_list
        runner = self._runner_of(modules)
        if len(cs) < runner.conditions_needed:
            given, last = f"{len(cs)} conditions", runner.conditions_needed - 1
            raise ShapeError(type(self).__name__, given, f"layers read conditions up to number {last}: c=[...]")
        values, log_jac = runner(modules, as_tensors(x_or_z), cs, rev=rev, jac=jac)
        return as_result(values if self.force_tuple_output else values[0], log_jac)


class _Built(Node):
    """A node around a module that is built already."""

    def __init__(self, source: Node, module: nn.Module, shape: Shape, condition: Node | None, name: str) -> None:
        self._module, self._shape = module, shape
        super().__init__(source, type(module), {}, conditions=condition, name=name)

    def build_module(
        self, condition_shapes: list[Shape], input_shapes: list[Shape]
    ) -> tuple[nn.Module | None, list[Shape]]:
        return self._module, [self._shape]
