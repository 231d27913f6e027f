"""The expected clean data of a flow that was trained on noisy ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invgraph.core.call import Ports
from invgraph.core.modes import without_inference
from invgraph.densities.bound_flow import broadcast_axes, is_broadcast, leading_axes
from invgraph.graph.graph import Graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Structured, Tensors

_WHERE = "Flow.denoise"


def denoised(
    log_prob: Callable[[Structured, Structured], Tensor],
    graph: Graph | Reversible,
    x: Structured,
    c: Structured,
    deviation: float,
) -> Any:
    """Return data moved along the gradient of their log-density, times the variance of the noise.

    Arguments:
        log_prob: The density of data under conditions.
        graph: The graph.
        x: Data, of the leading axes that the density takes.
        c: Conditions.
        deviation: Standard deviation of the noise.
    """
    ports, given = graph._inputs(), graph._conditions()
    cs = tuple(map(without_inference, given.unpack(_WHERE, c)))
    conditions = given.pack(cs)
    xs = _expanded(ports, x, cs[0].shape[0]) if is_broadcast(graph, x, conditions) else ports.unpack(_WHERE, x)
    with torch.enable_grad():
        noisy = tuple(without_inference(value).detach().requires_grad_() for value in xs)
        gradients = torch.autograd.grad(log_prob(ports.pack(noisy), conditions).sum(), noisy)
    clean = tuple(value.detach() + deviation * deviation * g for value, g in zip(noisy, gradients, strict=True))
    return ports.pack(clean)


def _expanded(ports: Ports, x: Any, rows: int) -> Tensors:
    """Return data of several leading axes, one for each density: the gradient of one row for all would be a sum."""
    axes = leading_axes(ports, x)
    assert axes is not None
    pairs = list(zip((x,) if ports.bare else x, ports.shapes, strict=True))
    ports.unpack(_WHERE, ports.pack(tuple(value.reshape(-1, *shape) for value, shape in pairs)))  # checks the rest
    full = broadcast_axes(axes, rows)
    # Axes that don't fit are refused where the density is asked for.
    return tuple(value if full is None else value.expand(*full, *shape) for value, shape in pairs)
