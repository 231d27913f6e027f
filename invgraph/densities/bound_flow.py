"""A flow under fixed conditions, and data of any leading axes under conditions of some rows."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from invgraph.arguments import require_amount, require_count, require_precise
from invgraph.core.call import Ports
from invgraph.densities.latents import Latents
from invgraph.errors import ArgumentError, ShapeError
from invgraph.graph.bound import BoundGraph, rows_at_once, run_in_chunks
from invgraph.graph.graph import Graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Shape, Structured, Tensors


@final
class BoundFlow:
    """A flow under fixed conditions, of B rows: see :meth:`invgraph.Flow.bind`.

    Arguments:
        latents: Density of the latents.
        graph: Graph, bound to the conditions.
    """

    def __init__(self, latents: Latents, graph: BoundGraph) -> None:
        self.latents, self.graph = latents, graph

    def log_prob(self, x: Structured, *, chunk: int | None = None) -> Tensor:
        """Return the log-density of data under the conditions, in nats.

        Arguments:
            x: Data ``(..., *shape)``; their leading axes broadcast with the axis of the B rows, so ``(n, B, *shape)``
                are n samples for each condition, and with a single row, ``(n, *shape)`` are n points.
            chunk: As in :meth:`sample`.

        Returns:
            A tensor of the leading axes, broadcast.

        Raises:
            ShapeError: If the leading axes don't fit to B rows.
            NumericsError: If an output lies outside the support of its base, and the base validates its arguments.
        """
        ports, rows = self.graph.schedules[0].source, self.graph.rows
        axes = leading_axes(ports, x)
        if axes is None:
            ports.unpack(self.graph.label, x)  # raises, unless the axes of several inputs differ
            raise ShapeError(
                self.graph.label, "inputs of different leading axes", "all inputs must have the same leading axes"
            )
        full = broadcast_axes(axes, rows)
        if full is None:
            advice = f"expected (n, {rows}, ...): the leading axes of the data broadcast against the rows bound"
            raise ShapeError(self.graph.label, f"leading axes {axes} for {rows} rows", advice)
        values = (x,) if isinstance(x, Tensor) else x
        samples = math.prod(full if rows == 1 else full[:-1])
        pairs = zip(values, ports.shapes, strict=True)
        data = [value.expand(*full, *shape).reshape(samples, rows, *shape) for value, shape in pairs]
        z, log_det = self.graph(ports.pack(tuple(data)), chunk=chunk)
        zs = (z,) if isinstance(z, Tensor) else z
        log_prob = self.latents.log_prob(tuple([part.flatten(0, 1) for part in zs])) + log_det.flatten()
        return require_precise(log_prob.view(full))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Any:
        """Draw ``n`` samples for each condition, without gradient.

        Arguments:
            n: Number of samples.
            temperature: Factor that scales the deviation of the latents from the mean of the base. Default: 1.
            generator: Generator of the random numbers, for the standard normal base only. Default: the global one.
            chunk: Largest number of rows, samples times conditions, that go through the graph at once, but at least
                one sample of each condition. Default: see ``graph.bind``.

        Returns:
            Samples ``(n, B, *shape)``, in the structure of the graph's inputs.
        """
        return self.draw(n, temperature, generator, chunk)[0]

    def rsample(
        self,
        n: int,
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Any:
        """Draw samples like :meth:`sample`, with gradients; those of conditions need ``bind(..., gradients=True)``."""
        self.latents.require_rsample()
        return self.draw(n, temperature, generator, chunk)[0]

    @torch.no_grad()
    def sample_and_log_prob(
        self, n: int, *, generator: torch.Generator | None = None, chunk: int | None = None
    ) -> tuple[Any, Tensor]:
        """Draw samples like :meth:`sample`; return them and their log-densities ``(n, B)``, from one pass."""
        x, log_prob = self.draw(n, 1.0, generator, chunk)
        return x, require_precise(log_prob)

    def rsample_and_log_prob(
        self, n: int, *, generator: torch.Generator | None = None, chunk: int | None = None
    ) -> tuple[Any, Tensor]:
        """Draw samples like :meth:`rsample`; return them and their log-densities ``(n, B)``, from one pass."""
        self.latents.require_rsample()
        x, log_prob = self.draw(n, 1.0, generator, chunk)
        return x, require_precise(log_prob)

    def draw(
        self, n: int, temperature: float, generator: torch.Generator | None, chunk: int | None
    ) -> tuple[Any, Tensor]:
        """Return samples and the log-densities of their latents, less the log-determinant of the inverse."""
        n, temperature = check_draw(n, temperature, generator)
        z = self.latents.draw(n * self.graph.rows, temperature, generator, self.graph.reference)
        return self.invert(n, z, chunk)

    def invert(self, n: int, z: Tensors, chunk: int | None) -> tuple[Any, Tensor]:
        """Return what latents ``(n * B, ...)`` become, and the log-densities of that."""
        rows = self.graph.rows
        x, log_det = self.graph.inverse(
            self.latents.ports.pack(tuple([torch.unflatten(part, 0, (n, rows)) for part in z])), chunk=chunk
        )
        log_prob = log_prob_in_chunks(
            self.latents, z, rows_at_once(self.graph.label, self.graph.layers, z, chunk, rows)
        )
        return x, torch.unflatten(log_prob, 0, (n, rows)) - log_det


def log_prob_in_chunks(latents: Latents, z: Tensors, rows: int) -> Tensor:
    """Return the log-densities of latents, ``rows`` rows at a time: the squares of all would take as much memory."""
    return run_in_chunks(lambda *parts: ((), latents.log_prob(parts)), z, rows)[1]


def check_draw(n: object, temperature: object, generator: object) -> tuple[int, float]:
    """Return the number of samples and the temperature; refuse those that are out of range."""
    n = require_count("Flow.sample", "n", n, least=0, most=2**31 - 1)
    temperature = require_amount("Flow.sample", "temperature", temperature)
    if generator is not None and not isinstance(generator, torch.Generator):
        advice = "generator must be a torch.Generator or None"
        raise ArgumentError("Flow.sample", f"generator={generator!r}", advice)
    return n, temperature


def leading_axes(ports: Ports, x: object) -> Shape | None:
    """Return the axes of data before those that the ports declare; None if they are not the same for all values."""
    values = (x,) if ports.bare else x
    if not isinstance(values, (tuple, list)) or len(values) != len(ports.shapes):
        return None
    found: Shape | None = None
    for value, shape in zip(values, ports.shapes, strict=True):
        if not isinstance(value, Tensor) or value.ndim < len(shape) or value.shape[value.ndim - len(shape) :] != shape:
            return None
        axes = tuple(value.shape[: value.ndim - len(shape)])
        if found is not None and axes != found:
            return None
        found = axes
    return found


def broadcast_axes(axes: Shape, rows: int) -> Shape | None:
    """Return the axes, the last of which is broadcast against the number of rows; None if they don't fit."""
    last = axes[-1] if axes else 1
    if last not in (1, rows) and rows != 1:
        return None
    return (*axes[:-1], rows if last == 1 else last)


def is_broadcast(graph: Graph | Reversible, x: object, c: object) -> bool:
    """True if data have several leading axes, or another number of rows than the single one of the conditions."""
    cs = (c,) if isinstance(c, Tensor) else c
    if not isinstance(cs, (tuple, list)) or not cs or not isinstance(cs[0], Tensor) or not cs[0].ndim:
        return False
    axes = leading_axes(graph._inputs(), x)
    if not axes or (len(axes) == 1 and cs[0].shape[0] != 1):
        return False
    return len(axes) > 1 or axes[0] != 1
