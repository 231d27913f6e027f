"""Layers along chosen axes, and learned downsampling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import invgraph as ig
from invgraph.testing import randomize


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_haar_along_one_axis_is_that_of_signals() -> None:
    x = noise(2, 3, 5, 4)
    (y,), log_det = ig.Haar((3, 5, 4), axes=(2,), rebalance=0.5).double()((x,))
    assert y.shape == (2, 6, 5, 2)
    rows = x.transpose(1, 2).flatten(0, 1)
    (z,), each = ig.Haar((3, 4), rebalance=0.5).double()((rows,))
    assert torch.allclose(y, z.unflatten(0, (2, 5)).transpose(1, 2), atol=1e-13)
    assert torch.allclose(log_det, each.unflatten(0, (2, 5)).sum(1))
    assert log_det[0] == pytest.approx(30 * math.log(0.5))


def test_axes_one_after_the_other_are_both_at_once() -> None:
    x = ig.InputNode(1, 4, 6, name="x")
    apart = ig.Graph(x, ig.chain(x, (ig.Haar, {"axes": (1,)}), (ig.Haar, {"axes": (2,)}))).double()
    data = noise(2, 1, 4, 6)
    (y,), _ = ig.Haar((1, 4, 6)).double()((data,))
    assert torch.allclose(apart(data)[0].sort(1).values, y.sort(1).values, atol=1e-13)


def test_permutations_along_an_axis() -> None:
    x = noise(2, 3, 4)
    layer = ig.Permute((3, 4), dim=1, order=(2, 3, 1, 0))
    (y,), _ = layer((x,))
    assert torch.equal(y, x[:, :, [2, 3, 1, 0]])
    assert torch.equal(layer.inverse((y,))[0][0], x)


@pytest.mark.parametrize(("factor", "shape"), [(2, (2, 6)), (2, (2, 4, 6)), (3, (1, 3, 6)), (2, (1, 2, 4, 2))])
@pytest.mark.parametrize("chart", ["exp", "cayley"])
def test_learned_downsampling_starts_as_cosines_and_stays_orthogonal(factor: int, shape: Any, chart: Any) -> None:
    layer, x = ig.OrthogonalSqueeze(shape, factor=factor, chart=chart).double(), noise(3, *shape)
    (y,), _ = ig.DCT(shape, block=factor).double()((x,))
    assert torch.allclose(layer((x,))[0][0], y, atol=1e-13)
    (z,), log_det = randomize(layer)((x,))
    assert not torch.allclose(z, y)
    assert torch.allclose(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), atol=1e-12)
    assert not log_det.any()


def test_learned_downsampling_starts_as_haar_and_shares_if_told() -> None:
    x = noise(3, 2, 4, 4)
    layer = ig.OrthogonalSqueeze((2, 4, 4), shared=True).double()
    (y,), _ = ig.Haar((2, 4, 4)).double()((x,))
    assert torch.allclose(layer((x,))[0][0].abs().sort(1).values, y.abs().sort(1).values, atol=1e-13)
    assert layer.square.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ig.Haar((1, 4, 4), axes=(0,)), ig.GraphError, r"expected some of \(1, 2\)"),
        (lambda: ig.Haar((1, 4, 4), axes=(1, 1)), ig.GraphError, "each once"),
        (lambda: ig.Haar((1, 4, 4), axes=()), ig.GraphError, "expected some of"),
        (lambda: ig.Haar((1, 4, 4), axes=2), ig.ArgumentError, "axes must be a tuple of ints"),
        (lambda: ig.Haar((1, 4, 3), axes=(2,)), ig.GraphError, "width 3 is odd"),
        (lambda: ig.Permute((2, 3), dim=2), ig.GraphError, r"dim must be in 0..1"),
        (lambda: ig.Permute((2, 3), dim=1, order=(1, 0)), ig.GraphError, "not a permutation of 0..2"),
        (lambda: ig.OrthogonalSqueeze((4,)), ig.GraphError, "expected a signal"),
        (lambda: ig.OrthogonalSqueeze((1, 3)), ig.GraphError, "length 3 is odd"),
        (lambda: ig.OrthogonalSqueeze((1, 4), chart="log"), ig.GraphError, "'exp' or 'cayley'"),
    ],
)
def test_wrong_axes_are_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_an_odd_size_along_another_axis_is_fine() -> None:
    assert ig.Haar((1, 4, 3), axes=(1,)).out_shapes == ((2, 2, 3),)
