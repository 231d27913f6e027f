"""Every transform in every structure, for vectors, signals, images and volumes, under 0, 1 and 2 conditions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize

TRANSFORMS = [
    ig.Additive(), ig.Affine(clamp=1.0), ig.VolumePreserving(clamp=1.0), ig.LinearSpline(bins=3),
    ig.LinearSpline(bins=3, circular=True), ig.QuadraticSpline(bins=3), ig.QuadraticSpline(bins=3, learned_bound=True),
    ig.RationalQuadraticSpline(bins=3), ig.RationalQuadraticSpline(bins=3, circular=True),
    ig.MixtureCDF(components=2), ig.Bernstein(degree=5),
]  # fmt: skip
SHAPES = {"vector": (4,), "signal": (2, 3), "image": (2, 2, 3), "volume": (2, 2, 1, 2)}
STRUCTURES = (ig.Coupling, ig.MaskedCoupling, ig.Elementwise, ig.Autoregressive)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conditions(shape: tuple[int, ...], count: int) -> tuple[tuple[int, ...], ...]:
    """Return no conditions, a vector, or a vector and a map of the data's size (two vectors for vectors)."""
    return ((3,), (1, *shape[1:]) if len(shape) > 1 else (2,))[:count]


def build(structure: Any, transform: Any, shape: tuple[int, ...], conds: tuple[tuple[int, ...], ...]) -> ig.Invertible:
    args: dict[str, Any] = {"transform": transform}
    if structure is ig.Autoregressive:
        args["hidden"] = 12
    elif structure is ig.Elementwise:
        # Its subnet reads the first condition: a map, where there are two and the data has positions.
        conds = conds[::-1]
        if conds:
            args["subnet"] = ig.nets.MLP(hidden=4) if len(conds[0]) == 1 else ig.nets.ConvNet(hidden=4)
    else:
        args["subnet"] = ig.nets.MLP(hidden=4) if len(shape) == 1 else ig.nets.ConvNet(hidden=4)
    torch.manual_seed(0)
    return randomize(structure(shape, conds, **args).double(), seed=1)


def combinations() -> list[Any]:
    """Return all combinations; the fast suite takes one count of conditions for each structure, transform and rank."""
    chosen = []
    every = itertools.product(*map(enumerate, (STRUCTURES, TRANSFORMS, SHAPES)))
    for (a, structure), (b, transform), (c, rank) in every:
        for count in range(3):
            marks = () if (a + b + c + count) % 3 == 0 else pytest.mark.slow
            name = f"{structure.__name__}-{transform}-{rank}-{count}"
            chosen.append(pytest.param(structure, transform, rank, count, id=name, marks=marks))
    return chosen


@pytest.mark.parametrize(("structure", "transform", "rank", "count"), combinations())
def test_round_trip_and_log_det(structure: Any, transform: Any, rank: str, count: int) -> None:
    shape = SHAPES[rank]
    if structure is ig.Autoregressive and not transform.pointwise:
        with pytest.raises(ig.GraphError, match="couples the elements"):
            build(structure, transform, shape, ())
        return
    layer = build(structure, transform, shape, conditions(shape, count))
    x, cs = 1.5 * normal(3, *shape), tuple(normal(3, *c, seed=5) for c in layer.cond_shapes)
    (y,), log_det = layer((x,), cs)
    (back,), minus = layer.inverse((y,), cs)
    assert (back - x).abs().max().item() <= 1e-10
    assert (minus + log_det).abs().max().item() <= 1e-10

    def summed(x: Tensor) -> Tensor:
        return layer((x,), cs)[0][0].flatten(1).sum(0)

    jacobian = torch.func.jacrev(summed)(x).flatten(2).transpose(0, 1)
    assert (torch.linalg.slogdet(jacobian).logabsdet - log_det).abs().max().item() <= 1e-9
    narrow = layer.float()
    (y32,), log_det32 = narrow((x.float(),), tuple(c.float() for c in cs))
    assert (y32 - y).abs().max().item() <= 1e-4
    assert (log_det32 - log_det).abs().max().item() <= 1e-3
    (back,), _ = narrow.inverse((y32,), tuple(c.float() for c in cs))
    assert (back - x).abs().max().item() <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_huge_and_subnormal_numbers(structure: Any, transform: Any, dtype: torch.dtype) -> None:
    if not transform.pointwise:
        return  # it subtracts the mean of the log scales, which mixes those of huge and tiny elements
    layer = build(structure, transform, (4,), ()).to(dtype)
    tiny = torch.finfo(dtype).tiny
    # A subnet may return anything for inputs of 1e30, so huge values are placed where no subnet reads them.
    huge = [1e30, -1e30, 0.0, tiny / 8] if structure is ig.Elementwise else [0.0, tiny / 8, -tiny / 8, tiny]
    x = torch.tensor([huge, [0.5, -0.0, 1.0, tiny]], dtype=dtype)
    (y,), log_det = layer((x,))
    assert bool(y.isfinite().all())
    assert bool(log_det.isfinite().all())
    (back,), _ = layer.inverse((y,))
    close = 1e-10 if dtype == torch.float64 else 1e-5
    assert torch.allclose(back, x, rtol=close, atol=close)
