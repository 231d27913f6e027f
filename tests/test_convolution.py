"""Convolutions from one channel and to few: other ways to the same numbers, and when they are taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from invgraph.nets import convolution
from invgraph.nets.convolution import CONVOLUTIONS, shifted_sum, unfolded

KINDS = [(rank, kernel, out) for rank in (1, 2, 3) for kernel in (1, 3, 5) for out in (1, 2, 7)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rank", "kernel", "out"), KINDS)
def test_a_shifted_sum_is_the_convolution(rank: int, kernel: int, out: int, bias: bool) -> None:
    layer = CONVOLUTIONS[rank - 1](3, out, kernel, padding=kernel // 2, bias=bias, dtype=torch.float64)
    x = torch.randn(2, 3, *(4, 7, 2)[:rank], dtype=torch.float64)  # a kernel may be larger than the data
    torch.testing.assert_close(shifted_sum(x, layer.weight, layer.bias), layer(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
def test_unfolded_it_is_the_convolution(kernel: int, bias: bool) -> None:
    layer = CONVOLUTIONS[1](2, 9, kernel, padding=kernel // 2, bias=bias, dtype=torch.float64)
    x = torch.randn(3, 4, 4, 7, dtype=torch.float64)[:, :2]
    torch.testing.assert_close(unfolded(x, layer.weight, layer.bias), layer(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("sizes", "kernel", "recorded", "dtype", "taken"),
    [
        ((4, 2), 3, False, torch.float32, "shifted_sum"),
        ((4, 8), 3, False, torch.float64, "shifted_sum"),
        ((1, 8), 3, False, torch.float32, "shifted_sum"),
        ((1, 9), 3, False, torch.float32, "unfolded"),
        ((2, 9), 3, False, torch.float32, None),
        ((4, 2), 1, False, torch.float32, None),
        ((4, 2), 3, True, torch.float32, None),
        ((1, 9), 3, True, torch.float32, None),
        ((4, 2), 3, False, torch.bfloat16, None),
        ((4, 2), 3, False, "autocast", None),
    ],
)
def test_each_is_taken_where_it_pays(
    sizes: tuple[int, int], kernel: int, recorded: bool, dtype: Any, taken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("shifted_sum", "unfolded"):
        own = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *given, name=name, own=own: calls.append(name) or own(*given))
    halved = dtype == "autocast"
    kind = torch.float32 if halved else dtype
    layer = CONVOLUTIONS[1](*sizes, kernel, padding=kernel // 2).to(kind)
    with torch.set_grad_enabled(recorded), torch.autocast("cpu", enabled=halved, dtype=torch.bfloat16):
        y = layer(torch.randn(2, sizes[0], 6, 6, dtype=kind))
    assert y.shape == (2, sizes[1], 6, 6)
    assert calls == ([] if taken is None else [taken])
