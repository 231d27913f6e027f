"""Learned linear layers against their matrices, and cosines against golden values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize

MLP, CONV = ig.nets.MLP(hidden=8), ig.nets.ConvNet(hidden=4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of(layer: Any, size: int, cs: tuple[Tensor, ...] = ()) -> Tensor:
    """Return the matrix of a linear layer on vectors."""
    (columns,), _ = layer((torch.eye(size, dtype=torch.float64),), tuple(c.expand(size, -1) for c in cs))
    return columns.t().detach()


def random(layer: Any, seed: int = 1) -> Any:
    return randomize(layer.double(), seed=seed)


ROTATIONS = {
    "conv1x1": lambda n: ig.Conv1x1((n,), orthogonal=True),
    "exp": lambda n: ig.OrthogonalLinear((n,)),
    "cayley": lambda n: ig.OrthogonalLinear((n,), chart="cayley"),
    "householder": lambda n: ig.Householder((n,), reflections=n),
}


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_orthogonal_layers_are_orthogonal(name: str, size: int) -> None:
    q = matrix_of(random(ROTATIONS[name](size)), size)
    assert torch.allclose(q @ q.t(), torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    if size > 1:
        assert not torch.allclose(q.abs(), torch.eye(size, dtype=torch.float64), atol=0.1)


@pytest.mark.parametrize("name", ROTATIONS)
def test_orthogonal_layers_stay_orthogonal_when_widened(name: str) -> None:
    q = matrix_of(ROTATIONS[name](16).float().double(), 16)
    assert torch.allclose(q @ q.t(), torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ROTATIONS)
def test_seeds_differ_and_repeat(name: str) -> None:
    kinds: dict[str, Any] = {
        "conv1x1": lambda seed: ig.Conv1x1((5,), orthogonal=True, seed=seed),
        "exp": lambda seed: ig.OrthogonalLinear((5,), seed=seed),
        "cayley": lambda seed: ig.OrthogonalLinear((5,), chart="cayley", seed=seed),
        "householder": lambda seed: ig.Householder((5,), seed=seed),
    }
    first, again, other = (matrix_of(kinds[name](seed).double(), 5) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_conv1x1_is_plu_with_a_free_determinant(size: int) -> None:
    layer = random(ig.Conv1x1((size,), seed=3))
    w = matrix_of(layer, size)
    _, log_det = layer((normal(2, size),))
    assert torch.allclose(log_det, torch.linalg.slogdet(w).logabsdet.expand(2), rtol=0, atol=1e-10)
    (x,), _ = layer.inverse((normal(3, size),))
    assert torch.allclose(x @ w.t(), normal(3, size), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernels", [True, False])
def test_conv1x1_starts_at_the_matrix_it_is_given(kernels: bool) -> None:
    w = normal(6, 6).roll(1, 0)
    layer = ig.Conv1x1((6, 2, 2), matrix=w).double()
    assert not torch.equal(layer.order, layer.order.argsort())
    x = normal(3, 6, 2, 2)
    with ig.fused(kernels):
        (y,), log_det = layer((x,))
    assert torch.allclose(y, torch.einsum("ij,bjhw->bihw", w, x), rtol=0, atol=1e-6)  # held in float32
    assert torch.allclose(log_det, 4 * torch.linalg.slogdet(w).logabsdet.expand(3), rtol=0, atol=1e-5)
    start = matrix_of(ig.Conv1x1((6,), seed=4).double(), 6)
    assert torch.allclose(start @ start.t(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (torch.tensor([[1.0, 2.0], [2.0, 4.0]]), "not invertible (cond "),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-13]], dtype=torch.float64), "not invertible (cond 4e13)"),
        (1e-50 * torch.eye(2, dtype=torch.float64), "out of the range of torch.float32"),
        (1e300 * torch.eye(2, dtype=torch.float64), "out of the range of torch.float32"),
        (torch.zeros(2, 2), "not invertible (cond "),
        (torch.full((2, 2), math.nan), "not invertible (cond inf)"),
        (torch.eye(3), "expected (2, 2) for 2 channels"),
        ([[1.0, 0.0]], "expected (2, 2) for 2 channels"),
    ],
)
def test_conv1x1_refuses_matrices_without_an_inverse(matrix: Any, words: str) -> None:
    with pytest.raises(ig.GraphError) as caught:
        ig.Conv1x1((2,), matrix=matrix)
    assert words in str(caught.value)


@pytest.mark.parametrize("matrix", [1e-50 * torch.eye(2).double(), 1 + 1e-10 * torch.eye(2).double()])
def test_a_fixed_matrix_is_judged_as_it_is_held(matrix: Tensor) -> None:
    with pytest.raises(ig.GraphError, match="not invertible"):  # in float32: zeros, and ones
        ig.FixedLinear((2,), matrix=matrix)


def test_householder_is_the_product_of_its_reflections() -> None:
    layer = random(ig.Householder((5,), reflections=3))
    product = torch.eye(5, dtype=torch.float64)
    for v in layer.vectors.detach():
        product = (torch.eye(5, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v)) @ product
    assert torch.allclose(matrix_of(layer, 5), product, rtol=0, atol=1e-13)
    assert torch.linalg.det(matrix_of(layer, 5)).item() == pytest.approx(-1)


def test_householder_vectors_follow_the_conditions() -> None:
    layer = random(ig.Householder((4,), ((2,),), reflections=2, subnet=MLP))
    a, b = (matrix_of(layer, 4, (normal(1, 2, seed=seed),)) for seed in (1, 2))
    assert not torch.allclose(a, b, atol=1e-3)
    places = random(ig.Householder((3, 2, 2), ((1, 2, 2),), reflections=2, subnet=CONV))
    x = normal(1, 3, 1, 1).expand(1, 3, 2, 2)
    (y,), _ = places((x,), (normal(1, 1, 2, 2),))
    assert not torch.allclose(y[..., 0, 0], y[..., 1, 1], atol=1e-3)
    assert torch.allclose(y.square().sum(1), x.square().sum(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-200, 1e30, 1e300])
def test_householder_takes_vectors_of_any_length(size: float) -> None:
    layer = ig.Householder((3,), reflections=1).double()
    layer.vectors.data = torch.tensor([[3.0, -4.0, 0.0]], dtype=torch.float64).sign() * size
    x = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    (y,), _ = layer((x,))
    expected = [1.0, 0.0, 2.0] if size == 0 else [0.0, 1.0, 2.0]
    assert y.tolist()[0] == pytest.approx(expected, abs=1e-14)
    (gradient,) = torch.autograd.grad(y.sum(), layer.vectors)
    assert bool(gradient.isnan().logical_not().all())


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_low_rank_linear_is_the_identity_plus_a_matrix_of_that_rank(rank: int) -> None:
    layer = random(ig.LowRankLinear((6,), rank=rank))
    w = matrix_of(layer, 6)
    assert torch.linalg.matrix_rank(w - torch.eye(6, dtype=torch.float64)) == rank
    _, log_det = layer((normal(2, 6),))
    assert torch.allclose(log_det, torch.linalg.slogdet(w).logabsdet.expand(2), rtol=0, atol=1e-12)
    assert torch.linalg.det(w) > 0
    (x,), _ = layer.inverse((normal(3, 6),))
    assert torch.allclose(x @ w.t(), normal(3, 6), rtol=0, atol=1e-12)


def test_low_rank_linear_starts_at_the_identity_and_stays_invertible() -> None:
    x = normal(3, 6)
    (y,), log_det = ig.LowRankLinear((6,), rank=2).double()((x,))
    assert torch.allclose(y, x, rtol=0, atol=1e-15)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))
    wild = randomize(ig.LowRankLinear((6,), rank=3, clamp=1.0).double(), seed=2, scale=1e3)
    (y,), log_det = wild((x,))
    assert log_det.abs().max() <= 3.0  # the determinant is bounded whatever the parameters are
    (back,), _ = wild.inverse((y,))
    assert torch.allclose(back, x, rtol=0, atol=1e-6 * y.abs().max().item())


# The orthonormal DCT-II of (1, 2, 3, 4), (0, 0, 1) and (1, -1, 1, -1, 1, -1, 1, -1), from the formula with 15 digits.
GOLDEN = [
    ([1.0, 2.0, 3.0, 4.0], [5.0, -2.230442497387663, 0.0, -0.158512667781107]),
    ([0.0, 0.0, 1.0], [0.577350269189626, -0.707106781186548, 0.408248290463863]),
    (
        [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0],
        [0.0, 0.509795579104159, 0.0, 0.601344886935045, 0.0, 0.899976223136416, 0.0, 2.562915447741505],
    ),
]


@pytest.mark.parametrize(("values", "golden"), GOLDEN)
def test_dct_of_known_signals(values: list[float], golden: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    for shape in ((len(values),), (1, len(values)), (1, len(values), 1), (1, 1, len(values), 1)):
        (y,), log_det = ig.DCT(shape).double()((x.view(1, *shape),))
        assert y.flatten().tolist() == pytest.approx(golden, abs=1e-14)
        assert log_det.item() == 0


def test_dct_of_a_known_image() -> None:
    # A horizontal edge: rows 0 and 1 dark, rows 2 and 3 bright; only the left column of frequencies is filled.
    x = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64).view(1, 1, 4, 1).expand(1, 1, 4, 4)
    (y,), _ = ig.DCT((1, 4, 4)).double()((x,))
    golden = torch.zeros(4, 4, dtype=torch.float64)
    golden[0, 0], golden[1, 0], golden[3, 0] = 2.0, -1.847759065022573, 0.765366864730180
    assert torch.allclose(y[0, 0], golden, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [2, 3, 8, 31, 128])
def test_dct_is_orthonormal_and_exact_in_float64(size: int) -> None:
    layer = ig.DCT((size,)).double()
    m = matrix_of(layer, size)
    assert torch.allclose(m @ m.t(), torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-13)


def test_dct_in_blocks_of_2_is_haar() -> None:
    for shape in ((3, 4), (2, 4, 6), (1, 2, 4, 2)):
        x = normal(2, *shape)
        (y,), _ = ig.DCT(shape, block=2).double()((x,))
        (z,), _ = ig.Haar(shape)((x,))
        assert torch.allclose(y, z, rtol=0, atol=1e-14)


def test_dct_of_blocks_is_the_dct_of_each() -> None:
    x = normal(1, 2, 8, 8)
    (y,), _ = ig.DCT((2, 8, 8), block=4).double()((x,))
    assert y.shape == (1, 32, 2, 2)
    (first,), _ = ig.DCT((2, 4, 4)).double()((x[:, :, :4, 4:],))
    assert torch.allclose(y[:, :, 0, 1], first.flatten(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    for layer in (
        ig.Conv1x1((3, 2, 2)), ig.OrthogonalLinear((3, 2, 2)), ig.Householder((3, 2, 2)),
        ig.LowRankLinear((3, 2, 2), rank=2), ig.DCT((3, 2, 2)),
    ):  # fmt: skip
        for call in (layer, layer.inverse):
            (y,), log_det = call((torch.zeros(batch, 3, 2, 2),))
            assert y.shape == (batch, 3, 2, 2)
            assert log_det.shape == (batch,)


LAYERS = {
    "conv1x1": lambda: ig.Conv1x1((3, 2, 2)),
    "rotation": lambda: ig.OrthogonalLinear((3, 2, 2)),
    "cayley": lambda: ig.OrthogonalLinear((3, 2, 2), chart="cayley"),
    "householder": lambda: ig.Householder((3, 2, 2)),
    "low_rank": lambda: ig.LowRankLinear((3, 2, 2), rank=2),
    "dct": lambda: ig.DCT((3, 2, 2)),
    "dct_blocks": lambda: ig.DCT((3, 2, 2), block=2),
}


@pytest.mark.parametrize(
    "name", [*list(LAYERS)[:2], *(pytest.param(n, marks=pytest.mark.slow) for n in list(LAYERS)[2:])]
)
def test_compiles_without_a_graph_break(name: str) -> None:
    torch._dynamo.reset()
    layer = LAYERS[name]()
    for call, shape in ((layer, layer.in_shapes[0]), (layer.inverse, layer.out_shapes[0])):
        x = normal(2, *shape).float()
        (y,), _ = torch.compile(call, fullgraph=True, backend="eager")((x,))
        assert torch.allclose(y, call((x,))[0][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_data_keeps_its_precision_under_autocast(name: str) -> None:
    layer = LAYERS[name]()
    x = normal(2, *layer.in_shapes[0]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,), _ = layer((x,))
        (back,), _ = layer.inverse((y,))
    assert torch.allclose(y, layer((x,))[0][0], rtol=0, atol=1e-6)  # bfloat16 would be off by 1e-2
    assert torch.allclose(back, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: ig.Conv1x1((2,), orthogonal=True, matrix=torch.eye(2)), ig.GraphError, "give one or the other"),
        (lambda: ig.Conv1x1((2,), seed=1.5), ig.ArgumentError, "seed must be an int"),
        (lambda: ig.OrthogonalLinear((2,), chart="euler"), ig.GraphError, "'exp' or 'cayley'"),
        (lambda: ig.OrthogonalLinear((2,), seed="one"), ig.ArgumentError, "seed must be an int"),
        (lambda: ig.Householder((2,), reflections=0), ig.GraphError, "positive"),
        (lambda: ig.Householder((2,), ((3,),)), ig.GraphError, "conditions need a subnet"),
        (lambda: ig.Householder((2,), subnet=MLP), ig.GraphError, "conditions need a subnet"),
        (lambda: ig.LowRankLinear((2,), rank=3), ig.GraphError, "rank=3 for 2 channels"),
        (lambda: ig.LowRankLinear((2,), rank=1, clamp=0), ig.GraphError, "clamp must be positive"),
        (lambda: ig.LowRankLinear((2,), ((3,),), rank=1), ig.GraphError, "conditions need a subnet"),
        (lambda: ig.LowRankLinear((2, 4), ((1, 4),), rank=1, subnet=CONV), ig.GraphError, "conditions must be vectors"),
        (lambda: ig.DCT((1, 5, 4), block=2), ig.GraphError, "height 5 is odd"),
        (lambda: ig.DCT((4,), block=2), ig.GraphError, "expected a signal"),
        (lambda: ig.DCT((1, 4), block=1), ig.GraphError, "single frequency"),
        (lambda: ig.DCT((1, 4), block=2.0), ig.ArgumentError, "int"),
    ],
)
def test_bad_arguments_are_refused(build: Any, error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        build()
    assert words in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_huge_and_subnormal_numbers_come_back(name: str, dtype: torch.dtype) -> None:
    layer = randomize(LAYERS[name](), seed=1).to(dtype)
    tiny, eps = torch.finfo(dtype).tiny, torch.finfo(dtype).eps
    for scale in (1e30, 1.0, tiny / 16):
        x = (normal(4, *layer.in_shapes[0]) * scale).to(dtype)
        (y,), log_det = layer((x,))
        (back,), _ = layer.inverse((y,))
        assert bool(y.isfinite().all() & log_det.isfinite().all())
        # Relative to the largest number, and never finer than the grid of the subnormals.
        allowed = max(500 * eps * x.abs().max().item(), 50 * tiny * eps)
        assert (back - x).abs().max().item() <= allowed


def test_a_low_rank_layer_is_continuous_where_a_direction_passes_zero() -> None:
    found = []
    for first in (1e-9, -1e-9, 0.0):
        layer = random(ig.LowRankLinear((3,), rank=1))
        with torch.no_grad():
            layer.directions.copy_(torch.tensor([[first], [1.0], [2.0]]))
        found.append(matrix_of(layer, 3))
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-8)
    assert torch.allclose(found[0], found[2], rtol=0, atol=1e-8)
