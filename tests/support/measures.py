"""Measurements used by the tests: differences, and Jacobians by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from flat import flat as as_layer
from torch import Tensor

import invgraph as ig


def gap(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> float:
    """Return the largest absolute difference; NaN if any difference is NaN."""
    assert [t.shape for t in left] == [t.shape for t in right]
    gaps = [(a.detach() - b.detach()).abs().max() for a, b in zip(left, right, strict=True) if a.numel()]
    return torch.stack(gaps).max().item() if gaps else 0.0  # torch's max keeps NaN


def equal(left: Any, right: Any) -> bool:
    """True if two results are equal, bit for bit."""
    (xs, a), (ys, b) = left, right
    return all(torch.equal(x, y) for x, y in zip((*xs, a), (*ys, b), strict=True))


def jacobian(function: Any, xs: tuple[Tensor, ...]) -> Tensor:
    """Return the Jacobian of each row, ``(B, D, D)``, from the sum over the batch, as rows are independent."""
    sizes = [x[0].numel() for x in xs]

    def total(joined: Tensor) -> Tensor:
        parts = (p.view_as(x) for p, x in zip(joined.split(sizes, dim=1), xs, strict=True))
        ys, _ = function(tuple(parts))
        return torch.cat([y.flatten(1) for y in ys], dim=1).sum(0)

    matrix: Tensor = torch.func.jacrev(total)(torch.cat([x.flatten(1) for x in xs], dim=1))
    return matrix.transpose(0, 1)


def draw(shapes: Any, batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Draw standard normal tensors."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)


def flat(graph: ig.Graph) -> tuple[Any, Any]:
    """Return both directions of a graph as functions of tuples, whatever structure the graph declares."""

    layer = as_layer(graph)
    return layer, layer.inverse


def assert_as_without_kernels(run: Callable[[], list[Tensor]], call: Callable[[], Tensor], close: float) -> None:
    """Assert that results and gradients are those of plain operations, and ``run``'s first result that of ``call``.

    Arguments:
        run: Function that returns results and gradients.
        call: Function that returns the first of the results, called without gradients.
        close: Largest difference, relative and absolute.
    """
    fast = run()
    with ig.fused(False):
        plain = run()
    with torch.no_grad():
        pairs = [*zip(fast, plain, strict=True), (call(), plain[0])]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


def assert_non_finite_numbers_pass(transform: ig.Transform, params: Tensor) -> None:
    """Assert that NaN and infinities stay what they are, in both directions; ``params`` are those of four numbers."""
    x = torch.tensor([[math.nan, math.inf, -math.inf, 0.5]], dtype=params.dtype)
    for call in (transform.forward, transform.inverse):
        y, _ = call(x, params)
        assert torch.equal(y[:, 1:3], x[:, 1:3])
        assert y.isnan().tolist() == [[True, False, False, False]]
