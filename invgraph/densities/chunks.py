"""Samples and densities of a flow on some rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invgraph.densities.bound_flow import BoundFlow, check_draw, log_prob_in_chunks
from invgraph.densities.latents import Latents
from invgraph.errors import ShapeError
from invgraph.graph.bound import rows_at_once, run_in_chunks
from invgraph.graph.graph import Graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Structured, Tensors
from invgraph.torch_internals import floating_tensor


def draw_samples(
    where: str,
    graph: Graph | Reversible,
    latents: Latents,
    n: int,
    c: Structured,
    temperature: float,
    generator: torch.Generator | None,
    chunk: int | None,
) -> tuple[Any, Tensor]:
    """Draw samples, and return them with the log-densities of their latents less the log-determinant of the inverse.

    Arguments:
        where: The method, for errors.
        graph: The graph.
        latents: Density of its outputs.
        n: Number of samples for each condition.
        c: Conditions.
        temperature: Factor that scales the deviation of the latents.
        generator: Generator of the latents.
        chunk: Number of rows that go through the graph at once.
    """
    n, temperature = check_draw(n, temperature, generator)
    conditions, target = graph._conditions(), graph._inputs()
    cs = conditions.unpack("Flow.sample", c)
    rows: Any = cs[0].shape[0] if cs else 1
    if any(condition.shape[0] != rows for condition in cs):
        given = f"conditions of batches {', '.join(str(condition.shape[0]) for condition in cs)}"
        raise ShapeError("Flow.sample", given, "all conditions of a call must have the same batch size")
    own = floating_tensor(graph)
    z = latents.draw(n * rows, temperature, generator, cs[0] if own is None and cs else own)
    at_once = rows_at_once(where, graph, z, chunk)
    if not cs:

        def run(*parts: Tensor) -> tuple[Tensors, Tensor]:
            x, log_det = graph.inverse(latents.ports.pack(parts))
            return ((x,) if target.bare else x), log_det

        xs, log_det = run_in_chunks(run, z, at_once)
        return target.pack(xs), log_prob_in_chunks(latents, z, at_once) - log_det
    if chunk is None or chunk >= rows:
        return BoundFlow(latents, graph.bind(c, gradients=True)).invert(n, z, chunk)
    found: list[list[Tensor]] = []
    whole: list[Tensor] = []
    for start in range(0, rows, chunk):  # some of the conditions at a time
        part = slice(start, start + chunk)
        bound = graph.bind(conditions.pack(tuple([condition[part] for condition in cs])), gradients=True)
        own_z = tuple([torch.unflatten(value, 0, (n, rows))[:, part].flatten(0, 1) for value in z])
        x, log_prob = BoundFlow(latents, bound).invert(n, own_z, chunk)
        made = [*((x,) if target.bare else x), log_prob]
        if torch.is_grad_enabled():
            found.append(made)
            continue
        whole = whole or [values.new_empty(n, rows, *values.shape[2:]) for values in made]
        for joined, values in zip(whole, made, strict=True):  # torch.cat at the end would need the memory twice
            joined[:, part] = values
    *parts_of_x, log_prob = whole or [torch.cat(parts, 1) for parts in zip(*found, strict=True)]
    return target.pack(tuple(parts_of_x)), log_prob


def in_chunks(
    log_prob: Callable[[Structured, Structured], Tensor],
    graph: Graph | Reversible,
    x: Structured,
    c: Structured,
    chunk: int,
) -> Tensor:
    """Return the log-densities of data, each row under its own row of the conditions, ``chunk`` rows at a time.

    Arguments:
        log_prob: The density of data under conditions.
        graph: The graph.
        x: Data.
        c: Conditions.
        chunk: Number of rows.
    """
    ports, given = graph._inputs(), graph._conditions()
    xs, cs = ports.unpack("Flow.log_prob", x), given.unpack("Flow.log_prob", c)
    if any(value.shape[0] != xs[0].shape[0] for value in (*xs, *cs)):
        return log_prob(x, c)  # raises

    def run(*parts: Tensor) -> tuple[Tensors, Tensor]:
        return (), log_prob(ports.pack(parts[: len(xs)]), given.pack(parts[len(xs) :]))

    rows = rows_at_once("Flow.log_prob", graph, xs, chunk)
    return run_in_chunks(run, (*xs, *cs), rows)[1]
