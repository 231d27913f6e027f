"""Standardize and FixedLinear: known moments of data."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import invgraph as ig


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("learned", [False, True])
def test_data_of_known_moments_become_standard(learned: bool) -> None:
    x = noise(200, 2, 3, 3) * torch.tensor([[[3.0]], [[0.1]]]) + 5
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)
    args = {"mean": mean[:, None, None], "std": std[:, None, None].tolist(), "learned": learned}
    layer = ig.Standardize((2, 3, 3), **args).double()
    (y,), log_det = layer((x,))
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert (y.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert torch.allclose(log_det, -9 * std.log().sum().expand(200), atol=1e-5)
    assert len(list(layer.parameters())) == 2 * learned


def test_numbers_of_every_form() -> None:
    x = noise(4, 2, 3)
    each = noise(2, 3).abs() + 1
    for mean, std in (
        (0.5, 2),
        ([[0.5], [-1.0]], 2.0),
        (each, each.float()),
        (torch.ones(2, 1), each),
        (0.0, [1, 2, 3]),
    ):
        layer = ig.Standardize((2, 3), mean=mean, std=std).double()
        (y,), log_det = layer((x,))
        assert torch.allclose(y, (x - torch.as_tensor(mean)) / torch.as_tensor(std), atol=1e-6)
        assert torch.allclose(log_det, -torch.as_tensor(std).log().double().expand(2, 3).sum().expand(4), atol=1e-5)


def test_whitening_is_a_matrix_and_a_shift() -> None:
    x = noise(500, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64) + torch.tensor([3.0, -1.0])
    matrix = torch.linalg.inv(torch.linalg.cholesky(x.t().cov()))
    layer = ig.FixedLinear((2,), matrix=matrix, shift=-matrix @ x.mean(0)).double()
    (y,), _ = layer((x,))
    assert y.mean(0).abs().max() < 1e-5
    assert (y.t().cov() - torch.eye(2)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"std": 0.0}, ig.GraphError, "std must be positive"),
        ({"mean": (1.0, 2.0)}, ig.GraphError, "expected"),
        ({"learned": 1}, ig.ArgumentError, "learned must be True or False"),
    ],
)
def test_wrong_moments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.Standardize((2, 3), **args)


@pytest.mark.parametrize("shift", [(1.0,), (1.0, float("inf")), 2.0])
def test_wrong_shifts_are_refused(shift: Any) -> None:
    with pytest.raises(ig.GraphError, match="expected 2 finite numbers for 2 channels"):
        ig.FixedLinear((2,), matrix=torch.eye(2), shift=shift)
