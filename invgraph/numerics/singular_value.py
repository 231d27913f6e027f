"""The largest singular value of the Jacobian of a batched function, by power iteration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invgraph.numerics.seeding import generator, normal
from invgraph.shapes import Tensors

Function = Callable[[Tensors], Tensors]
_STILL = 1e-4


def largest_singular_value(function: Function, xs: Tensors, iterations: int, seed: int) -> Tensor:
    """For each sample, how much the function stretches a small change of its inputs at most; shape ``(B,)``.

    Products with the Jacobian and its transpose come from autograd (where a function can't be differentiated twice,
    the first from a difference quotient); the value grows towards the true one from below.

    Arguments:
        function: from tensors to tensors, batch first, whose rows are independent.
        xs: where.
        iterations: at most so many steps; it ends earlier where no value grows by more than one in ten thousand.
        seed: of the vector that it starts from.
    """
    source = generator(seed)
    v = tuple(normal(x.shape, source).to(x) for x in xs)
    v, _ = _normalized(v)
    with torch.enable_grad():
        points = tuple(x.detach().requires_grad_() for x in xs)
        ys = function(points)
        probe = tuple(torch.zeros_like(y).requires_grad_() for y in ys)
        pulled = torch.autograd.grad(ys, points, probe, create_graph=True, materialize_grads=True)
    found = xs[0].new_zeros(len(xs[0]))
    for _ in range(iterations):
        before = found
        # The pull-back is linear in its probe: its derivative, transposed, pushes forward.
        pushed = torch.autograd.grad(pulled, probe, v, retain_graph=True, allow_unused=True)
        if all(part is None for part in pushed):
            u = _difference(function, xs, v)
        else:
            u = tuple(torch.zeros_like(y) if p is None else p for y, p in zip(ys, pushed, strict=True))
        u, found = _normalized(u)
        v = torch.autograd.grad(ys, points, u, retain_graph=True, materialize_grads=True)
        v, _ = _normalized(v)
        if not bool((found > before * (1 + _STILL)).any()):
            break
    return found


def _normalized(vector: Tensors) -> tuple[Tensors, Tensor]:
    """The vector of each sample at length one, and its length; a vector of zeros stays one."""
    squares = [part.flatten(1).square().sum(1) for part in vector]
    length = torch.stack(squares).sum(0).sqrt()
    factor = torch.where(length > 0, 1 / length, torch.ones_like(length))
    return tuple(part * factor.view(-1, *(1,) * (part.ndim - 1)) for part in vector), length


def _difference(function: Function, xs: Tensors, v: Tensors) -> Tensors:
    """How the outputs change along v, by a central difference."""
    step = torch.finfo(xs[0].dtype).eps ** (1 / 3)
    with torch.no_grad():
        ahead = function(tuple(x + step * part for x, part in zip(xs, v, strict=True)))
        behind = function(tuple(x - step * part for x, part in zip(xs, v, strict=True)))
    return tuple((a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True))
