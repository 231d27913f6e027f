"""Convolutions to few channels: the shifted sum, and when it is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from invgraph.fused.convolution import shifted_sum
from invgraph.nets import convolution
from invgraph.nets.convolution import CONVOLUTIONS

KINDS = [(rank, kernel, out) for rank in (1, 2, 3) for kernel in (1, 3, 5) for out in (1, 2, 7)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rank", "kernel", "out"), KINDS)
def test_a_shifted_sum_is_the_convolution(rank: int, kernel: int, out: int, bias: bool) -> None:
    layer = CONVOLUTIONS[rank - 1](3, out, kernel, padding=kernel // 2, bias=bias, dtype=torch.float64)
    x = torch.randn(2, 3, *(4, 7, 2)[:rank], dtype=torch.float64)  # a kernel may be larger than the data
    torch.testing.assert_close(shifted_sum(x, layer.weight, layer.bias), layer(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("sizes", "kernel", "recorded", "dtype", "taken"),
    [
        ((4, 2), 3, False, torch.float32, True),
        ((4, 8), 3, False, torch.float64, True),
        ((2, 9), 3, False, torch.float32, False),
        ((4, 2), 1, False, torch.float32, False),
        ((4, 2), 3, True, torch.float32, False),
        ((4, 2), 3, False, torch.bfloat16, False),
        ((4, 2), 3, False, "autocast", False),
    ],
)
def test_it_is_taken_where_it_pays(
    sizes: tuple[int, int], kernel: int, recorded: bool, dtype: Any, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def seen(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return shifted_sum(*arguments)

    monkeypatch.setattr(convolution, "shifted_sum", seen)
    halved = dtype == "autocast"
    kind = torch.float32 if halved else dtype
    layer = CONVOLUTIONS[1](*sizes, kernel, padding=kernel // 2).to(kind)
    with torch.set_grad_enabled(recorded), torch.autocast("cpu", enabled=halved, dtype=torch.bfloat16):
        y = layer(torch.randn(2, sizes[0], 6, 6, dtype=kind))
    assert y.shape == (2, sizes[1], 6, 6)
    assert bool(calls) is taken
