"""A graph calls a layer's own formulas directly, but never past a hook, a patch, or a compiled call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig
from invgraph.testing import randomize

Hang = Callable[[Any, list[str]], Any]
"""Hang something on a layer that tells when it is called; a hook is returned as its handle."""


def graph() -> ig.Graph:
    x = ig.InputNode(4, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}
    return randomize(ig.Graph(x, ig.Node(ig.Node(x, ig.Coupling, args, name="coupling"), ig.Permute)))


def telling(method: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def told(*args: Any) -> Any:
        seen.append("told")
        return method(*args)

    return told


def on_every_module(layer: nn.Module, seen: list[str]) -> Any:
    def tell(module: nn.Module, *_: object) -> None:
        if module is layer:
            seen.append("told")

    return nn.modules.module.register_module_forward_hook(tell)


FORWARD: dict[str, Hang] = {
    "a forward of its own": lambda layer, seen: setattr(layer, "forward", telling(layer.forward, seen)),
    "a compiled call": lambda layer, seen: setattr(layer, "_compiled_call_impl", telling(layer._call_impl, seen)),
    "a hook before": lambda layer, seen: layer.register_forward_pre_hook(lambda *_: seen.append("told")),
    "a hook after": lambda layer, seen: layer.register_forward_hook(lambda *_: seen.append("told")),
    "a hook on every module": on_every_module,
}
INVERSE: dict[str, Hang] = {
    "an inverse of its own": lambda layer, seen: setattr(layer, "inverse", telling(layer.inverse, seen)),
    "a compiled inverse": lambda layer, seen: setattr(
        layer, "_compiled_inverse_impl", telling(layer._inverse_impl, seen)
    ),
}


@pytest.mark.parametrize("name", [*FORWARD, *INVERSE])
def test_what_is_hung_on_a_layer_is_called(name: str) -> None:
    whole, x, seen = graph(), torch.randn(3, 4), list[str]()
    run = whole.inverse if name in INVERSE else whole
    expected = run(x)
    handle = {**FORWARD, **INVERSE}[name](whole.layers["coupling"], seen)
    try:
        found = run(x)
    finally:
        if handle is not None:
            handle.remove()  # a hook on every module would stay for all tests
    assert seen == ["told"]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


class Calling(ig.Permute):
    """A layer whose call does more."""

    def __call__(self, *args: Any) -> Any:
        ys, log_det = super().__call__(*args)
        return ys, log_det + 1


def test_a_call_of_its_own_is_called() -> None:
    x = ig.InputNode(4, name="x")
    _, log_det = ig.Graph(x, ig.Node(x, Calling))(torch.zeros(3, 4))
    assert torch.equal(log_det, torch.ones(3))


class Keeping(ig.Permute):
    """A layer that returns what it keeps."""

    def _forward(self, xs: Any, cs: Any) -> Any:
        (y,), _ = super()._forward(xs, cs)
        self.kept = getattr(self, "kept", torch.zeros(1).expand(len(y)))
        return (y,), self.kept


def test_a_log_determinant_may_be_changed_in_place() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, Keeping))
    for _ in range(2):
        _, log_det = graph(torch.zeros(3, 4))
        assert torch.equal(log_det, torch.zeros(3))
        log_det += 1


def test_a_hook_may_replace_the_log_determinant() -> None:
    whole, x = graph(), torch.randn(3, 4)
    z, log_det = whole(x)
    whole.layers["coupling"].register_forward_hook(lambda *given: (given[2][0], given[2][1] + 1))
    changed, more = whole(x)
    assert torch.equal(changed, z)
    torch.testing.assert_close(more, log_det + 1)
