"""The kernels of masked networks give the results and gradients of plain operations, to any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measures import assert_as_without_kernels
from torch import Tensor

import invgraph as ig
from invgraph.fused.masked_mlp import stairs
from invgraph.testing import randomize

KINDS = [
    ((5,), 2, {"hidden": 8, "layers": 2, "transform": ig.Affine()}),
    ((2, 3), 0, {"hidden": 7, "transform": ig.Affine(clamp=1.2, activation="tanh")}),
    ((21,), 0, {"hidden": 260, "layers": 2, "transform": ig.Affine()}),
    ((9,), 3, {"hidden": 256, "layers": 3, "transform": ig.RationalQuadraticSpline(bins=3)}),
    ((5,), 2, {"hidden": 8, "transform": ig.Affine(clamp=torch.tanh)}),
]


def build(shape: tuple[int, ...], conditions: int, args: dict[str, Any]) -> tuple[Any, Tensor, tuple[Tensor, ...]]:
    layer = randomize(ig.Autoregressive((shape,), ((conditions,),) if conditions else (), **args), seed=1).double()
    source = torch.Generator().manual_seed(2)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=source).requires_grad_()
    c = torch.randn(3, conditions, dtype=torch.float64, generator=source).requires_grad_()
    return layer, x, (c,) if conditions else ()


def gradients(layer: Any, x: Tensor, cs: tuple[Tensor, ...]) -> list[Tensor]:
    (y,), log_det = layer((x,), cs)
    loss = (y.square() * torch.linspace(0, 1, y[0].numel(), dtype=y.dtype).view_as(y[0])).sum() + log_det.square().sum()
    return [y, log_det, *torch.autograd.grad(loss, [x, *cs, *layer.parameters()])]


@pytest.mark.parametrize(("shape", "conditions", "args"), KINDS)
def test_it_is_what_plain_operations_give(shape: tuple[int, ...], conditions: int, args: dict[str, Any]) -> None:
    layer, x, cs = build(shape, conditions, args)
    assert_as_without_kernels(lambda: gradients(layer, x, cs), lambda: layer((x,), cs)[0][0], 1e-11)


def test_each_row_of_a_condition_that_is_shared_gets_the_gradient_of_all() -> None:
    layer, x, cs = build(*KINDS[0])
    found = []
    for enabled in (True, False):
        with ig.fused(enabled):
            (y,), _ = layer._forward((torch.cat((x, 2 * x)),), layer.precompute(cs))
            found.append(torch.autograd.grad(y.square().sum(), [x, *cs, *layer.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_second_derivatives_go_through_plain_operations() -> None:
    layer, x, cs = build(*KINDS[0])
    assert torch.autograd.gradgradcheck(lambda x, c: layer((x,), (c,))[0][0].square().sum(), (x, *cs))


def test_one_node_stands_for_a_whole_layer_and_frozen_weights_get_no_gradient() -> None:
    layer, x, cs = build(*KINDS[0])
    layer.subnet.layers[1].weight.requires_grad_(False)
    (y,), _ = layer((x,), cs)
    assert "AffineAutoregressive" in type(y.grad_fn).__name__
    y.sum().backward()
    assert layer.subnet.layers[1].weight.grad is None
    assert layer.subnet.layers[0].weight.grad is not None
    for part in (layer.subnet, layer.subnet.condition, layer.subnet.layers[0]):
        hook = part.register_forward_hook(lambda *_: None)  # it wants its module to be called
        (y,), _ = layer((x,), cs)
        assert "AffineAutoregressive" not in type(y.grad_fn).__name__
        hook.remove()


def test_wide_layers_are_multiplied_in_steps_that_hold_every_weight_in_use() -> None:
    degrees = [1 + unit * 20 // 300 for unit in range(300)]
    found = stairs(degrees, degrees)
    assert len(found) == 4
    used = torch.zeros(300, 300, dtype=torch.bool)
    for rows, seen in found:
        used[rows, seen] = True
    mask = torch.tensor(degrees)[:, None] >= torch.tensor(degrees)
    assert not (mask & ~used).any()
    assert used.float().mean() < 0.7
    assert stairs(degrees, degrees[:200]) == ()
    assert stairs(degrees, [*range(200), *range(200)]) == ()  # the outputs are not sorted
