"""Small convolutional networks run with channels last, and nobody can tell by the result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.fused.channels_last import prefers_channels_last
from invgraph.fused.sequence import run


def network(*, ends: tuple[int, int] = (3, 4), hidden: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv2d(ends[0], hidden, 3, padding=1), nn.Conv2d(hidden, ends[1], 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.Tanh(), last)


def test_it_gives_the_same_values_and_gradients_laid_out_as_usual() -> None:
    net, x = network(), torch.randn(2, 6, 5, 5)[:, 1:4].requires_grad_()
    seen: list[bool] = []

    class Looks(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    assert prefers_channels_last(net, x)
    y = run(net, x)
    assert y.is_contiguous()
    parameters = [x, *net.parameters()]
    fast = torch.autograd.grad(y.square().sum(), parameters)
    plain = torch.autograd.grad(net(x).square().sum(), parameters)
    for a, b in zip((y, *fast), (net(x), *plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    net[2].__class__ = Looks  # a class that it does not know sees the usual layout
    run(net, x)
    assert seen == [False]


def hooked(net: nn.Sequential) -> None:
    net[1].register_forward_hook(lambda *_: None)


def patched(net: nn.Sequential) -> None:
    net[0].forward = net[0].forward  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [hooked, patched, lambda net: net.append(nn.Flatten()), lambda net: net.double()])
def test_whatever_could_see_the_layout_gets_the_usual_one(change: Any) -> None:
    net = network()
    change(net)
    x = torch.randn(2, 3, 5, 5, dtype=net[0].weight.dtype)
    assert not prefers_channels_last(net, x)
    assert torch.equal(run(net, x), net(x))


def test_hooks_on_every_module_see_the_usual_layout() -> None:
    seen = list[bool]()
    handle = nn.modules.module.register_module_forward_hook(lambda *args: seen.append(args[2].is_contiguous()))
    try:
        run(network(), torch.randn(2, 3, 5, 5))
    finally:
        handle.remove()
    assert seen == [True] * 6


def test_networks_that_are_narrower_inside_and_other_data_are_left_alone() -> None:
    assert prefers_channels_last(network(ends=(2, 6)), torch.randn(2, 2, 5, 5))
    assert not prefers_channels_last(network(ends=(3, 6)), torch.randn(2, 3, 5, 5))
    assert not prefers_channels_last(network(ends=(8, 8)), torch.randn(2, 8, 5, 5))
    assert not prefers_channels_last(network(), torch.randn(3, 5, 5))
    assert not prefers_channels_last(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5))
    assert not prefers_channels_last(network(), torch.randn(2, 3, 5, 5, device="meta"))
    with ig.fused(False):
        assert not prefers_channels_last(network(), torch.randn(2, 3, 5, 5))


def test_a_coupling_calls_its_network_so() -> None:
    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        return network(ends=(channels_in, channels_out), hidden=16)

    layer = ig.Coupling((6, 4, 4), ((2,),), transform=ig.Affine(), subnet=subnet)
    x, c = torch.randn(2, 6, 4, 4), torch.randn(2, 2)
    (y,), log_det = layer((x,), (c,))
    with ig.fused(False):
        (expected,), expected_log_det = layer((x,), (c,))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-4, atol=1e-4)
