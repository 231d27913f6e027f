"""A cell of the table: one graph in one runner and one direction, and what the plain graph gives."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from found import Found, compare, found
from torch import Tensor, nn

import invgraph as ig

from .graphs import SAMPLES, built, draw

RUNNERS = ("plain", "bound", "reversible", "compiled", "exported")


class Bound(nn.Module):
    """A graph under its conditions: it takes the rows of all samples, and the rows of conditions once."""

    def __init__(self, graph: ig.Graph, inverse: bool) -> None:
        super().__init__()
        self.net, self.inverse = graph, inverse

    def forward(self, xs: Any, cs: Any) -> Any:
        bound = self.net.bind(cs, gradients=True)
        ys, log_det = (bound.inverse if self.inverse else bound)(tuple(x.unflatten(0, (-1, len(cs[0]))) for x in xs))
        return tuple(y.flatten(0, 1) for y in ys), log_det.flatten(0, 1)


class Exported(nn.Module):
    """A graph as a program of ``torch.export``, which is made now and has weights of its own."""

    def __init__(self, graph: ig.Graph, inverse: bool) -> None:
        super().__init__()
        self.program = ig.export(graph, "inverse" if inverse else "forward").module()

    def forward(self, xs: Any, cs: Any) -> Any:
        *ys, log_det = self.program(*xs, *cs)
        return tuple(ys), log_det


def repeated(cs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(c.repeat(SAMPLES, *(1,) * (c.ndim - 1)) for c in cs)


@functools.cache
def expected(name: str, inverse: bool) -> Found:
    """Results of the plain graph without kernels, and its gradients."""
    graph = built(name)
    call = graph.inverse if inverse else graph
    with ig.fused(False):
        return found(lambda xs, cs: call(xs, repeated(cs)), draw(graph, name, inverse), tuple(graph.parameters()), True)


@dataclass
class Cell:
    """One graph in one runner and one direction.

    Attributes:
        name: The graph.
        runner: How it is run.
        inverse: Whether it is run backwards.
        graph: A copy of the graph, to do things to.
    """

    name: str
    runner: str = "plain"
    inverse: bool = False
    graph: ig.Graph = field(init=False)

    def __post_init__(self) -> None:
        if self.runner in ("compiled", "exported"):
            torch._dynamo.reset()
        self.graph = copy.deepcopy(built(self.name))

    @property
    def compares_gradients(self) -> bool:
        return self.runner != "exported"

    def module(self, graph: Any = None, **compile_options: Any) -> nn.Module:
        """The runner, of this graph or of another one, as a module that is called with values and conditions."""
        graph = self.graph if graph is None else graph
        if self.runner == "bound":
            return Bound(graph, self.inverse)
        if self.runner == "exported":
            return Exported(graph, self.inverse)
        if self.runner == "compiled":
            graph.compile(backend="eager", **compile_options)
        runner = ig.reversible(graph) if self.runner == "reversible" else graph
        return ig.Inverse(runner) if self.inverse else runner

    def leaves(self, dtype: torch.dtype = torch.float64) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return draw(self.graph, self.name, self.inverse, dtype)

    def given(self, cs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Conditions as the runner takes them."""
        return cs if self.runner == "bound" else repeated(cs)

    def run(
        self, module: Callable[..., Any], parameters: Sequence[Tensor] | None = None, gradients: bool = True
    ) -> Found:
        """Call the runner, and differentiate."""
        wanted = tuple(self.graph.parameters()) if parameters is None else parameters
        gradients = gradients and self.compares_gradients
        with torch.set_grad_enabled(gradients):
            return found(lambda xs, cs: module(xs, self.given(cs)), self.leaves(), wanted, gradients)

    @property
    def right(self) -> Found:
        return expected(self.name, self.inverse)

    def agree(
        self,
        module: Callable[..., Any] | None = None,
        parameters: Sequence[Tensor] | None = None,
        *,
        gradients: bool = True,
        tolerance: float = 1e-9,
    ) -> None:
        """Assert that the runner gives what the plain graph gives."""
        got = self.run(self.module() if module is None else module, parameters, gradients)
        compare(got, self.right, f"{self.name}, {self.runner}", tolerance)


Check = Callable[[Cell], object]


@dataclass(frozen=True)
class Habit:
    """Something that people do with any module, and what comes of it.

    Attributes:
        name: What it is called.
        code: It, in a line of code; ``graph`` is the graph, ``flow`` a flow of it, ``x`` and ``c`` its arguments.
        check: Does it to a cell, and compares.
        runners: The runners that it is tried in.
        why: What a user should know, in a sentence.
        refused: Words of the error of this library that refuses it: by runner, by graph, or by both.
        without: Graphs that it does not apply to.
        needs: Packages without which it can't be tried.
    """

    name: str
    code: str
    check: Check
    runners: tuple[str, ...]
    why: str = ""
    refused: Mapping[str | tuple[str, str], str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()

    def refusal(self, name: str, runner: str) -> str | None:
        """The words of the error with which a cell is refused, or None if it works."""
        for key in ((name, runner), name, runner):
            if key in self.refused:
                return self.refused[key]
        return None

    def applies(self, name: str, runner: str, inverse: bool) -> bool:
        """False for a graph, runner or direction in which there is nothing to try.

        The inverse of ``Dequantize`` rounds: no backward pass can rebuild what it was given. ``ContinuousFlow`` can not
        be exported, which tests/test_export.py holds.
        """
        rounds = (name, runner, inverse) == ("integers", "reversible", True)
        exports = (name, runner) != ("continuous", "exported")
        return name not in self.without and runner in self.runners and not rounds and exports

    def try_on(self, cell: Cell) -> str:
        """Check a cell, and return "works" or "refused".

        Raises:
            AssertionError: The cell is neither right nor refused as the table says.
        """
        words = self.refusal(cell.name, cell.runner)
        if words is None:
            self.check(cell)
            return "works"
        with pytest.raises(ig.errors.InvgraphError, match=words):
            self.check(cell)
        return "refused"


HABITS: dict[str, Habit] = {}
"""The table, in the order of the docs; the files beside this one fill it."""


def habit(
    name: str, code: str, why: str = "", *, runners: tuple[str, ...] = RUNNERS[:4], **options: Any
) -> Callable[[Check], Check]:
    """Put a check into the table."""

    def add(check: Check) -> Check:
        assert name not in HABITS
        HABITS[name] = Habit(name, code, check, runners, why, **options)
        return check

    return add


@contextmanager
def ignoring(*messages: str) -> Iterator[None]:
    """Let warnings of torch pass that begin with these words."""
    import warnings

    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message)
        yield
