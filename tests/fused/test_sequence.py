"""Sequences run without the calls of their modules: the same numbers, to the bit, and nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import invgraph as ig
from invgraph.fused.sequence import run


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 2))


SEQUENCES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "dense": (dense, (5, 3)),
    "rows": (dense, (5, 2, 3)),
    "ReLU first": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(3, 4), nn.ReLU()), (5, 3)),
    "ReLU in place": (lambda: nn.Sequential(nn.LeakyReLU(), nn.ReLU(inplace=True), nn.Linear(3, 4)), (5, 3)),
    "others": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)), (5, 3)),
    "nested": (lambda: nn.Sequential(dense(), nn.ReLU(), nn.Linear(2, 2)), (5, 3)),
    "images": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(), nn.Conv2d(4, 2, 1)), (2, 3, 5, 5)),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 2, 2, groups=2), nn.ReLU()), (2, 4, 5, 5)),
    "reflected": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()), (2, 3, 5)),
    "signals": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 2, 1)), (2, 3, 5)),
    "volumes": (lambda: nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1)), (2, 3, 4, 4, 4)),
    "two ReLU": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 2)), (5, 3)),
    "empty": (nn.Sequential, (5, 3)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_values_and_gradients_are_those_of_the_modules(name: str) -> None:
    torch.manual_seed(0)
    make, shape = SEQUENCES[name]
    net, x = make(), torch.randn(shape, requires_grad=True)
    before, leaves = x.detach().clone(), [x, *net.parameters()]
    expected, y = net(x), run(net, x)
    assert torch.equal(y, expected)
    assert torch.equal(x, before)
    for a, b in zip(*(torch.autograd.grad(z.square().sum(), leaves) for z in (y, expected)), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.equal(run(net, x), expected)


@pytest.mark.parametrize("place", [0, 1, None])
@pytest.mark.parametrize("how", ["hook", "global", "instance", "class", "off"])
def test_whatever_could_see_the_calls_sees_them(place: int | None, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, seen = dense(), torch.randn(5, 3), list[Any]()
    part: Any = net if place is None else net[place]

    def note(module: Any, given: Any, result: Tensor) -> None:
        if module is part:
            seen.append(result.clone())

    forward = type(part).forward
    if how == "hook":
        part.register_forward_hook(note)
    elif how == "global":
        handle = nn.modules.module.register_module_forward_hook(note)
    elif how == "instance":
        part.forward = lambda x: note(part, x, y := forward(part, x)) or y
    elif how == "class":
        monkeypatch.setattr(type(part), "forward", lambda self, x: note(self, x, y := forward(self, x)) or y)
    else:
        part.register_forward_hook(note)
    with ig.fused(how != "off"):
        y = run(net, x)
    if how == "global":
        handle.remove()
    assert len(seen) == 1
    h = functional.linear(functional.relu(net[0].forward(x)), net[2].weight)
    torch.testing.assert_close(y, net[4](functional.relu(h)))


def test_what_another_layer_has_returned_is_not_overwritten() -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.kept = x - 1
            return self.kept

    net = nn.Sequential(nn.Linear(3, 3), Keeps(), nn.ReLU())
    run(net, torch.randn(5, 3))
    assert net[1].kept.min() < 0


def test_other_parameters_for_a_call_are_used() -> None:
    net, x = dense(), torch.randn(4, 3)
    other = {name: value.detach() * 2 for name, value in net.named_parameters()}

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return run(self.net, x)

    swapped = torch.func.functional_call(Calls(), {f"net.{name}": value for name, value in other.items()}, x)
    assert torch.equal(swapped, torch.func.functional_call(net, other, x))
    torch.testing.assert_close(torch.vmap(lambda x: run(net, x))(x[:, None]), net(x)[:, None])


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_that_are_no_parameters(name: str) -> None:
    """Replicas of data parallel, FSDP and hypernetworks have such."""
    net, x = dense(), torch.randn(4, 3)
    for layer in (net[0], net[4]):
        value = getattr(layer, name).detach() * 2
        delattr(layer, name)
        setattr(layer, name, value)
    assert torch.equal(run(net, x), net(x))


def test_a_patched_convolution_is_called() -> None:
    net, x = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()), torch.randn(1, 2, 4, 4)
    usual = run(net, x)

    def circular(given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(given, (1, 1, 1, 1), mode="circular"), weight, bias)

    net[0]._conv_forward = circular
    assert torch.equal(run(net, x), net(x))
    assert not torch.equal(run(net, x), usual)


def test_results_that_a_dispatch_mode_keeps_are_not_overwritten() -> None:
    """Selective activation checkpointing keeps them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Keeps(TorchDispatchMode):
        kept: Tensor

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.addmm.default:
                self.kept = result
            return result

    with torch.no_grad(), Keeps() as mode:
        run(nn.Sequential(nn.Linear(3, 30), nn.ReLU()), torch.randn(5, 3))
    assert mode.kept.min() < 0


def test_a_function_that_is_replaced_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of operations replace it."""
    calls = list[str]()
    original = functional.conv2d
    monkeypatch.setattr(functional, "conv2d", lambda *args: calls.append("conv2d") or original(*args))
    run(nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), torch.randn(1, 2, 4, 4))
    assert calls == ["conv2d"]


def test_a_condition_may_be_overwritten_before_the_backward_pass() -> None:
    net = nn.Sequential(nn.Linear(1024, 2048), nn.ReLU())
    x, c = torch.randn(4, 512, requires_grad=True), torch.randn(4, 512)
    (expected,) = torch.autograd.grad(net(torch.cat((x, c), dim=1)).square().sum(), x)
    y = run(net, x, (c,))
    assert "JointLinear" in str(y.grad_fn.next_functions)  # type: ignore[union-attr]
    c.zero_()
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], expected)


def test_a_relu_in_place_that_comes_first_overwrites_what_it_is_given() -> None:
    make = lambda: nn.Sequential(nn.ReLU(True), nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1))  # noqa: E731
    net, x = make(), torch.randn(2, 2, 4, 4)
    other = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(run(net, x), net(other))
    assert torch.equal(x, other)
