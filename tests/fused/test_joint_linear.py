"""The first layer of a network that reads data joined with conditions: gradients as without the kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.fused import joint_linear
from invgraph.fused.sequence import run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of the kernel, which is taken however small the data are."""
    seen: list[Any] = []
    kernel = joint_linear.joint_linear
    monkeypatch.setattr(joint_linear, "_ENOUGH", 1)
    monkeypatch.setattr(joint_linear, "joint_linear", lambda *given: seen.append(given) or kernel(*given))
    return seen


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)).double()


def rows(channels: int) -> Tensor:
    return torch.randn(4, channels, dtype=torch.float64)


def loss(net: nn.Module, x: Tensor, cs: tuple[Tensor, ...]) -> Tensor:
    return run(net, x, cs).pow(3).sum()


@pytest.mark.parametrize("frozen", [None, "0.weight", "0.bias"])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_without_it(calls: list[Any], order: int, frozen: str | None) -> None:
    net, x, cs = network(), rows(3).requires_grad_(), (rows(1), rows(3))
    if frozen is not None:
        net.get_parameter(frozen).requires_grad_(False)
    leaves, found = [x, *(value for value in net.parameters() if value.requires_grad)], []
    for enabled in (True, False):
        with ig.fused(enabled):
            grads = torch.autograd.grad(loss(net, x, cs), leaves, create_graph=order == 2)
        if order == 2:
            grads = torch.autograd.grad(sum(grad.square().sum() for grad in grads), leaves)  # type: ignore[arg-type]
        found.append(grads)
    torch.testing.assert_close(*found)
    assert len(calls) == 1


def test_it_is_taken_where_conditions_alone_need_no_gradient(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, c = network(), rows(3), rows(4)
    run(net, x, (c,))
    run(net, x.requires_grad_(), (c.clone().requires_grad_(),))
    run(nn.Sequential(nn.Linear(7, 5, bias=False)).double(), x, (c,))
    run(nn.Sequential(nn.Tanh(), *net), x, (c,))
    run(net[0], x, (c,))
    with torch.no_grad():
        run(net, x, (c,))
    assert not calls
    monkeypatch.setattr(joint_linear, "_ENOUGH", 4 * 4 * 5)
    run(net, x, (c,))
    monkeypatch.setattr(joint_linear, "_ENOUGH", 4 * 4 * 5 + 1)
    run(net, x, (c,))
    assert len(calls) == 1


def test_a_block_trains_through_it(calls: list[Any]) -> None:
    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, 8), nn.ReLU(), nn.Linear(8, channels_out))

    block = ig.AllInOne((6,), ((2,),), subnet=subnet).double()
    x, c = rows(6).requires_grad_(), rows(2)
    found = []
    for enabled in (True, False):
        with ig.fused(enabled):
            (y,), log_det = block((x,), (c,))
            found.append(torch.autograd.grad(y.pow(3).sum() + log_det.sum(), [x, *block.parameters()]))
    torch.testing.assert_close(*found)
    assert len(calls) == 1
