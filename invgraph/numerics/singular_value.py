"""Largest singular value of the Jacobian of a batched function, by power iteration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from invgraph.numerics.seeding import generator, normal
from invgraph.shapes import Tensors

Function = Callable[[Tensors], Tensors]
_CONVERGED = 1e-4


def largest_singular_value(function: Function, xs: Tensors, iterations: int, seed: int) -> Tensor:
    """Return the largest singular value of the Jacobian of each sample, shape ``(B,)``.

    Outputs that autograd can't differentiate count as constant; if there are no others, the values are zero.

    Products with the Jacobian and its transpose come from autograd; for a function that can't be differentiated twice,
    those with the Jacobian are finite differences. The estimate increases towards the true value.

    Arguments:
        function: Function from tensors to tensors, batch first, that treats the samples independently.
        xs: Inputs at which the Jacobian is taken.
        iterations: Maximum number of iterations; they end early once no value grows by more than 0.01 %.
        seed: Seed of the initial vector.
    """
    with torch.enable_grad():
        points = tuple(x.detach().requires_grad_() for x in xs)
        outputs = function(points)
        smooth = [place for place, y in enumerate(outputs) if y.requires_grad]
        ys = tuple(outputs[place] for place in smooth)
        probe = tuple(torch.zeros_like(y).requires_grad_() for y in ys)
        vjp = torch.autograd.grad(ys, points, probe, create_graph=True, allow_unused=True) if ys else ()
    linear = [place for place, part in enumerate(vjp) if part is not None and part.requires_grad]
    found = xs[0].new_zeros(len(xs[0]))
    if all(part is None for part in vjp):
        return found
    # From the outputs, so that what they are constant in never enters v: a difference would step over roundings.
    source = generator(seed)
    u = tuple(normal(y.shape, source).to(y) for y in ys)
    v, _ = _normalize(torch.autograd.grad(ys, points, u, retain_graph=True, materialize_grads=True))
    for _ in range(iterations):
        before = found
        # The vjp is linear in its probe, so the vjp of the vjp is the jvp.
        along = [vjp[place] for place in linear], probe, [v[place] for place in linear]
        jvp = torch.autograd.grad(*along, retain_graph=True, allow_unused=True) if linear else (None,) * len(ys)
        if all(part is None for part in jvp):
            change = _difference(function, xs, v)
            u = tuple(change[place] for place in smooth)
        else:
            u = tuple(torch.zeros_like(y) if p is None else p for y, p in zip(ys, jvp, strict=True))
        u, found = _normalize(u)
        v = torch.autograd.grad(ys, points, u, retain_graph=True, materialize_grads=True)
        v, _ = _normalize(v)
        if not bool((found > before * (1 + _CONVERGED)).any()):
            break
    return found


def _normalize(vector: Tensors) -> tuple[Tensors, Tensor]:
    """Return the vector of each sample, scaled to length one, and its length; a zero vector stays zero."""
    rows = torch.cat([part.flatten(1) for part in vector], 1)
    largest = pad(rows, (0, 1)).abs().amax(1)  # a row may be empty
    most = torch.finfo(rows.dtype).max  # what has overflowed keeps its direction, and its length is infinite
    # The squares of huge and of tiny numbers would be out of range.
    rows = rows.clamp(-most, most) / torch.where(largest > 0, largest.clamp(max=most), 1.0)[:, None]
    length = rows.square().sum(1).sqrt()
    rows = rows / torch.where(length > 0, length, 1.0)[:, None]
    parts = rows.split([part[0].numel() for part in vector], 1)
    return tuple(row.view_as(part) for row, part in zip(parts, vector, strict=True)), length * largest


def _difference(function: Function, xs: Tensors, v: Tensors) -> Tensors:
    """Return the derivative of the outputs along v, by a central difference."""
    step = torch.finfo(xs[0].dtype).eps ** (1 / 3)
    with torch.no_grad():
        ahead = function(tuple(x + step * part for x, part in zip(xs, v, strict=True)))
        behind = function(tuple(x - step * part for x, part in zip(xs, v, strict=True)))
    return tuple((a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True))
