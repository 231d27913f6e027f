"""A graph calls a layer's own formulas directly, but never past a hook, a patch, or a compiled call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig
from invgraph.testing import randomize

Patch = Callable[[Any, list[str]], AbstractContextManager[None]]


def graph() -> ig.Graph:
    x = ig.InputNode(4, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}
    return randomize(ig.Graph(x, ig.Node(ig.Node(x, ig.Coupling, args, name="coupling"), ig.Permute)))


def telling(method: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def told(*args: Any) -> Any:
        seen.append("told")
        return method(*args)

    return told


@contextmanager
def a_forward_of_its_own(layer: Any, seen: list[str]) -> Iterator[None]:
    layer.forward = telling(layer.forward, seen)
    yield


@contextmanager
def an_inverse_of_its_own(layer: Any, seen: list[str]) -> Iterator[None]:
    layer.inverse = telling(layer.inverse, seen)
    yield


@contextmanager
def a_compiled_call(layer: Any, seen: list[str]) -> Iterator[None]:
    layer._compiled_call_impl = telling(layer._call_impl, seen)
    yield


@contextmanager
def a_compiled_inverse(layer: Any, seen: list[str]) -> Iterator[None]:
    layer._compiled_inverse_impl = telling(layer._inverse_impl, seen)
    yield


@contextmanager
def a_hook_before(layer: nn.Module, seen: list[str]) -> Iterator[None]:
    layer.register_forward_pre_hook(lambda *_: seen.append("told"))
    yield


@contextmanager
def a_hook_after(layer: nn.Module, seen: list[str]) -> Iterator[None]:
    layer.register_forward_hook(lambda *_: seen.append("told"))
    yield


@contextmanager
def a_hook_on_every_module(layer: nn.Module, seen: list[str]) -> Iterator[None]:
    def tell(module: nn.Module, *_: object) -> None:
        if module is layer:
            seen.append("told")

    handle = nn.modules.module.register_module_forward_hook(tell)
    yield
    handle.remove()


FORWARD: list[Patch] = [a_forward_of_its_own, a_compiled_call, a_hook_before, a_hook_after, a_hook_on_every_module]
INVERSE: list[Patch] = [an_inverse_of_its_own, a_compiled_inverse]


@pytest.mark.parametrize(
    ("patch", "inverse"), [*((patch, False) for patch in FORWARD), *((patch, True) for patch in INVERSE)]
)
def test_what_is_hung_on_a_layer_is_called(patch: Patch, inverse: bool) -> None:
    whole, x, seen = graph(), torch.randn(3, 4), list[str]()
    run = whole.inverse if inverse else whole
    expected = run(x)
    with patch(whole.layers["coupling"], seen):
        found = run(x)
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
