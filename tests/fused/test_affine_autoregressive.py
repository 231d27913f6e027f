"""The kernels of masked networks give the results and gradients of plain operations, to any order."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
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


def build(
    shape: tuple[int, ...], conditions: int, args: dict[str, Any], seed: int = 1
) -> tuple[Any, Tensor, tuple[Tensor, ...]]:
    layer = randomize(ig.Autoregressive((shape,), ((conditions,),) if conditions else (), **args), seed=seed).double()
    source = torch.Generator().manual_seed(2)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=source).requires_grad_()
    c = torch.randn(3, conditions, dtype=torch.float64, generator=source).requires_grad_()
    return layer, x, (c,) if conditions else ()


def gradients(layer: Any, x: Tensor, cs: tuple[Tensor, ...]) -> list[Tensor]:
    (y,), log_det = layer((x,), cs)
    loss = (y.square() * torch.linspace(0, 1, y[0].numel(), dtype=y.dtype).view_as(y[0])).sum() + log_det.square().sum()
    return [y, log_det, *torch.autograd.grad(loss, [x, *cs, *layer.parameters()])]


def test_a_constant_log_determinant_is_differentiated_twice() -> None:
    layer, y, cs = build((5,), 2, {"hidden": 8, "transform": ig.Additive()})

    def results() -> list[Tensor]:
        (x,), log_det = layer.inverse((y,), cs)
        (slope,) = torch.autograd.grad(x.square().sum() + log_det.sum(), y, create_graph=True)
        curvature = torch.autograd.grad(slope.square().sum(), [y, *cs, *layer.parameters()], allow_unused=True)
        return [x, log_det, slope, *(part for part in curvature if part is not None)]

    assert_as_without_kernels(results, lambda: layer.inverse((y,), cs)[0][0], 1e-11)


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


def _give_another_weight(layer: Any) -> None:
    layer.subnet.layers[1].weight = torch.nn.Parameter(layer.subnet.layers[1].weight.detach() + 1)


def _give_another_transform(layer: Any) -> None:
    change: Any = {"clamp": 0.3} if isinstance(layer.transform, ig.Affine) else {"bound": 2.0}
    layer.transform = dataclasses.replace(layer.transform, **change)


def _give_another_subnet(layer: Any) -> None:
    layer.subnet = build(*KINDS[0][:2], {**KINDS[0][2], "transform": layer.transform}, seed=3)[0].subnet


CHANGES: dict[str, Callable[[Any], object]] = {
    "weight": _give_another_weight,
    "value": lambda layer: layer.subnet.condition.weight.data.add_(1),
    "mask": lambda layer: layer.subnet.layers[1].mask.zero_(),
    "transform": _give_another_transform,
    "layer": lambda layer: layer.subnet.layers.__setitem__(1, torch.nn.Linear(8, 8).double()),
    "subnet": _give_another_subnet,
    "precision": lambda layer: layer.half().double(),
}


@pytest.mark.parametrize("transform", [ig.Affine(), ig.RationalQuadraticSpline(bins=3)], ids=["affine", "spline"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_kernel_follows_what_becomes_of_its_network(change: str, transform: Any) -> None:
    shape, conditions, args = KINDS[0]
    layer, x, cs = build(shape, conditions, {**args, "transform": transform})
    before = gradients(layer, x, cs)
    CHANGES[change](layer)
    found = gradients(layer, x, cs)
    with ig.fused(False):
        expected = gradients(layer, x, cs)
    assert not torch.equal(before[0], found[0])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_what_a_kernel_keeps_is_of_its_layer_alone_and_in_its_precision() -> None:
    layer, x, cs = build(*KINDS[0])
    layer((x,), cs)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert "_fused" in vars(layer)
    assert "_fused" not in vars(copied)
    copied((x,), cs)
    for parameter in copied.parameters():
        parameter.data = parameter.data.float()
    (y,), _ = copied((x.float(),), tuple(c.float() for c in cs))
    torch.testing.assert_close(y.double(), layer((x,), cs)[0][0], rtol=1e-4, atol=1e-4)


class Foreign(Tensor):
    """A tensor that knows few operations, as distributed and quantized ones do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.addmm, Tensor.addmm_)
        assert func is not Tensor.to or isinstance(args[0], cls)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("transform", [ig.Affine(), ig.RationalQuadraticSpline(bins=3)], ids=["affine", "spline"])
def test_foreign_tensors_are_left_to_the_layers(transform: Any) -> None:
    shape, conditions, args = KINDS[0]
    layer, x, cs = build(shape, conditions, {**args, "transform": transform})
    (expected,), _ = layer((x,), cs)
    masked = layer.subnet.layers[1]
    masked.weight = torch.nn.Parameter(masked.weight.detach().as_subclass(Foreign))
    for _ in range(2):
        (y,), _ = layer((x,), cs)
        torch.testing.assert_close(y.as_subclass(Tensor), expected, rtol=1e-11, atol=1e-11)


def test_a_kernel_made_in_inference_mode_has_gradients_outside_of_it() -> None:
    layer, x, cs = build(*KINDS[0])
    with torch.inference_mode():
        layer((x,), cs)
    (y,), _ = layer((x,), cs)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert layer.subnet.layers[1].weight.grad.abs().sum() > 0


def test_wide_layers_are_multiplied_in_steps_that_hold_every_weight_in_use() -> None:
    for width, steps in ((256, 2), (600, 4)):
        degrees = [1 + unit * 20 // width for unit in range(width)]
        found = stairs(degrees, degrees)
        assert len(found) == steps
        used = torch.zeros(width, width, dtype=torch.bool)
        for rows, seen in found:
            used[rows, seen] = True
        mask = torch.tensor(degrees)[:, None] >= torch.tensor(degrees)
        assert not (mask & ~used).any()
        assert used.float().mean() < (1 + 1 / steps) / 2 + 0.05
    degrees = [1 + unit * 20 // 300 for unit in range(300)]
    assert stairs(degrees, degrees[:200]) == ()
    assert stairs(degrees, [*range(200), *range(200)]) == ()  # the outputs are not sorted
