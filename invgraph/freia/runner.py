"""A native graph of layers with FrEIA's contract, and how it is called in FrEIA's way."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from invgraph.errors import ArgumentError, InputTypeError, ShapeError
from invgraph.freia.contract import Contract
from invgraph.freia.plan import Plan
from invgraph.graph.graph import Graph
from invgraph.graph.run import Observer, fill, run
from invgraph.graph.schedule import Schedule
from invgraph.shapes import Tensors


class Runner:
    """The graph of a network, run over the modules of its ``module_list``.

    The modules are handed over at each call, because ``nn.DataParallel`` replaces them by copies and programs exchange
    them. The graph is not a submodule of the network, so that keys of checkpoints are FrEIA's.

    Arguments:
        graph: Native graph, whose layers are those of ``module_list``, in its order.
        conditions: Place of each of the graph's conditions among those of a call.
    """

    def __init__(self, graph: Graph, conditions: tuple[int, ...]) -> None:
        self.graph = graph
        self.conditions = conditions
        self.conditions_needed = max(conditions, default=-1) + 1
        self._layers = len(graph.layers)
        self._kept: dict[bool, tuple[tuple[nn.Module, ...], tuple[nn.Module, ...], tuple[Plan, Plan]]] = {}

    def __call__(
        self, modules: nn.ModuleList, xs: Tensors, cs: Any, *, rev: bool, jac: bool, after: Observer | None = None
    ) -> tuple[Tensors, Tensor]:
        """Return values and log-determinant."""
        schedule = self.schedule(rev)
        if len(xs) != len(schedule.starts):
            raise ShapeError("forward", f"{len(xs)} inputs", f"expected {len(schedule.starts)}")
        slots = fill(schedule, xs, tuple([cs[place] for place in self.conditions]))
        layers, plans = self._layers_of(tuple(modules), jac)
        if after is None and not torch.compiler.is_compiling():
            return plans[rev].run(slots)
        return run(schedule, layers, slots, after=after)

    def schedule(self, rev: bool) -> Schedule:
        """Return one direction of the graph."""
        return self.graph.inverse_schedule if rev else self.graph.forward_schedule

    def fits(self, modules: nn.ModuleList) -> bool:
        """True if the graph has one layer for each module."""
        return len(modules) == self._layers

    def _layers_of(self, modules: tuple[Any, ...], jac: bool) -> tuple[tuple[nn.Module, ...], tuple[Plan, Plan]]:
        """Return the graph's layers around these modules, and the plans of both directions over them."""
        kept = self._kept.get(jac)
        if kept is None or kept[0] != modules:  # a comparison of identities
            pairs = zip(self.graph.layers.values(), modules, strict=True)
            # Bound here once more, because threads of nn.DataParallel share the runner.
            layers = tuple(_around(layer, module, jac) for layer, module in pairs)
            plans = Plan(self.schedule(False), layers), Plan(self.schedule(True), layers)
            kept = self._kept[jac] = (modules, layers, plans)
        return kept[1], kept[2]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle: without the layers kept to be quick."""
        return {**self.__dict__, "_kept": {}}


def _around(layer: Any, module: Any, jac: bool) -> nn.Module:
    """Return a layer of the graph around another module; a network of conditions stands for itself."""
    if not isinstance(layer, Contract):
        return cast("nn.Module", module)
    around: Contract = layer if jac and layer.module is module else layer.with_module(module, jac=jac)
    return around


def as_tensors(x: Any) -> Tensors:
    """Return the inputs of a call as a tuple: FrEIA takes a tensor, a tuple or a list."""
    if isinstance(x, Tensor):
        return (x,)
    if not isinstance(x, (tuple, list)):
        raise InputTypeError("forward", f"inputs: {type(x).__name__}", "expected a tensor, or a tuple or list of them")
    return tuple(x)


def as_conditions(c: Any) -> tuple[Any, ...]:
    """Return the conditions of a call as a tuple: FrEIA takes a tensor, a tuple, a list or None."""
    if c is None:
        return ()
    if isinstance(c, Tensor):
        return (c,)
    if not isinstance(c, (tuple, list)):
        raise InputTypeError("forward", f"c: {type(c).__name__}", "expected a tensor, or a list of tensors: c=[c]")
    return tuple(c)


_TWO_VALUES = "write z, log_jac = net(x, c=c), and x, log_jac = net(z, c=c, rev=True)"


class ValueAndLogDet(tuple[Any, ...]):
    """Result of a network, ``(z, log_jac)``; if used as if it were ``z`` alone, its error says which line to write."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_") and hasattr(Tensor, name):
            given = f"the attribute {name!r} of what a network returned"
            raise AttributeError(f"{given}: FrEIA returns two values since 0.2; {_TWO_VALUES}")
        raise AttributeError(name)

    def _refuse(self, other: object) -> NoReturn:
        given = "arithmetic on what a network returned"
        raise ArgumentError("forward", given, f"FrEIA returns two values since 0.2; {_TWO_VALUES}")

    __pow__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __matmul__ = _refuse


def as_result(values: Any, log_det: Tensor) -> tuple[Any, Tensor]:
    """Return the two values of a call; a compiled call returns a plain tuple."""
    if torch.compiler.is_compiling():
        return values, log_det
    return ValueAndLogDet((values, log_det))


def refuse_old_call(where: str, name: str) -> NoReturn:
    """Refuse a method of FrEIA before 0.2, naming the line to write."""
    raise ArgumentError(where, f"{name}(...)", f"every call returns the log-determinant as well: {_TWO_VALUES}")
