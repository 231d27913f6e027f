"""Affine couplings of fully connected networks, whose gradient is derived by hand: the same as without kernels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils import parametrizations

import invgraph as ig
from invgraph.testing import randomize

LAYERS = [
    {},
    {"sides": 1},
    {"split": 1, "subnet": ig.nets.MLP(3, layers=3)},
    {"transform": ig.Affine(clamp=0.7, activation="tanh")},
    {"transform": ig.Affine(clamp=1.3, activation="sigmoid"), "sides": 1, "split": 4},
]
CONDITIONS = [(), ((2,),), ((2,), (3,))]


def coupling(conditions: Any = ((2,),), **args: Any) -> ig.Coupling:
    layer = ig.Coupling((5,), conditions, **{"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(4), **args})
    return randomize(layer.double(), seed=1)


def values(layer: ig.Coupling, seed: int = 0) -> tuple[Tensor, ...]:
    """Data, then conditions."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 5), *((3, *shape) for shape in layer.cond_shapes))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes)


def run(layer: ig.Coupling, inverse: bool, x: Tensor, *cs: Tensor) -> tuple[Tensor, Tensor]:
    (y,), log_det = layer.inverse((x,), cs) if inverse else layer((x,), cs)
    return y, log_det


def readable(layer: ig.Coupling, inverse: bool, x: Tensor, *cs: Tensor) -> tuple[Tensor, Tensor]:
    """Run the layer without kernels."""
    with ig.fused(False):
        return run(layer, inverse, x, *cs)


def gradients(outputs: tuple[Tensor, Tensor], leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    slopes = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in outputs]
    return torch.autograd.grad(outputs, leaves, slopes)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("args", LAYERS)
def test_results_and_gradients_are_those_without_kernels(args: Any, conditions: Any, inverse: bool) -> None:
    layer = coupling(conditions, **args)
    given = values(layer)
    assert layer._kernel(given[0]) is not None
    own, exact = run(layer, inverse, *given), readable(layer, inverse, *given)
    with torch.no_grad():
        unrecorded = run(layer, inverse, *given)
    for one, other, third in zip(own, exact, unrecorded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)
        assert torch.equal(one, third)
    leaves = (*given, *layer.parameters())
    for one, other in zip(gradients(own, leaves), gradients(exact, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("args", LAYERS[:4])
def test_first_and_second_derivatives_are_right(args: Any, inverse: bool) -> None:
    layer = coupling(**args)
    given = (*values(layer), *(p for p in layer.parameters() if p.ndim == 1))

    def call(x: Tensor, c: Tensor, *biases: Tensor) -> tuple[Tensor, Tensor]:
        return run(layer, inverse, x, c)

    assert gradcheck(call, given, check_batched_grad=True)
    assert gradgradcheck(call, given[:2])


@pytest.mark.parametrize("place", range(9))
def test_a_gradient_is_computed_for_what_asks_for_one_alone(place: int) -> None:
    layer = coupling(((2,), (3,)))
    leaves = [*values(layer), *layer.parameters()]
    for index, value in enumerate(leaves):
        value.requires_grad_(index == place)
    y, log_det = run(layer, False, *leaves[:3])
    (found,) = gradients((y, log_det), (leaves[place],))
    exact = gradients(readable(layer, False, *leaves[:3]), (leaves[place],))[0]
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)


def test_parameters_put_in_for_one_call_count_in_later_derivatives_too() -> None:
    layer = coupling()
    x, c = values(layer)
    others = {name: (p * 1.5).detach().requires_grad_() for name, p in layer.named_parameters()}
    (y,), _ = functional_call(layer, others, ((x,), (c,)))
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    again = torch.autograd.grad(slope.square().sum(), list(others.values()))
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.copy_(others[name])
    exact, _ = readable(layer, False, x, c)
    (slope,) = torch.autograd.grad(exact.square().sum(), x, create_graph=True)
    for one, other in zip(again, torch.autograd.grad(slope.square().sum(), list(layer.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def _hooked(layer: ig.Coupling, seen: list[str]) -> None:
    for name, module in layer.subnets.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))


def _backward_hooked(layer: ig.Coupling, seen: list[str]) -> None:
    for name, module in layer.subnets.named_modules():
        if type(module).__name__ == "_Dense":
            module.register_full_backward_hook(lambda *_, name=name: seen.append(name))


@pytest.mark.parametrize("hook", [_hooked, _backward_hooked])
def test_hooks_of_the_networks_are_called(hook: Any) -> None:
    layer, seen = coupling(()), list[str]()
    hook(layer, seen)
    (x,) = values(layer)
    y, _ = run(layer, False, x)
    y.sum().backward()
    assert len(seen) >= 2


def test_what_a_hook_keeps_is_not_overwritten() -> None:
    net, kept = ig.nets.MLP(hidden=8)(4, 6), list[tuple[Tensor, Tensor]]()
    net.layers[0].register_forward_hook(lambda *arguments: kept.append((arguments[-1], arguments[-1].clone())))
    net(torch.randn(5, 4))
    ((output, copy),) = kept
    assert torch.equal(output, copy)


def test_surgery_is_seen() -> None:
    layer = coupling(())
    (x,) = values(layer)
    net = layer.subnets[0][0]
    before, _ = run(layer, False, x)
    parametrizations.weight_norm(net.layers[1])
    assert layer._kernel(x) is None
    torch.testing.assert_close(run(layer, False, x)[0], before)
    layer = coupling(())
    layer.subnets[0][0].layers[1] = nn.Sequential(layer.subnets[0][0].layers[1], nn.Tanh())
    assert layer._kernel(x) is None
    assert not torch.allclose(run(layer, False, x)[0], before)
    for bias in (True, False):
        layer.subnets[0][0].layers[1] = nn.Linear(4, 4, bias=bias).double()
        assert (layer._kernel(x) is not None) == bias
        torch.testing.assert_close(run(layer, False, x), readable(layer, False, x))


def test_data_that_are_laid_out_otherwise_come_out_right() -> None:
    layer = coupling()
    x, c = values(layer)
    turned = x.detach().t().contiguous().t().requires_grad_()
    wide = torch.cat((x, x), 1).detach()[:, ::2].requires_grad_()
    for other in (turned, wide):
        own, exact = run(layer, False, other, c), readable(layer, False, other, c)
        torch.testing.assert_close(own, exact, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(gradients(own, (other,)), gradients(exact, (other,)), rtol=1e-12, atol=1e-13)


def test_the_caller_s_gradient_is_left_alone() -> None:
    layer = coupling()
    x, c = values(layer)
    y, log_det = run(layer, False, x, c)
    slope = torch.ones_like(y)
    torch.autograd.backward((y, log_det), (slope, torch.ones(1, dtype=y.dtype).expand(3)))
    assert torch.equal(slope, torch.ones_like(y))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("args", LAYERS)
def test_the_reversible_runner_finds_the_same(args: Any, inverse: bool) -> None:
    x, c = ig.InputNode(5, name="x"), ig.ConditionNode(2, name="c")
    layer = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(4), **args}
    graph = randomize(ig.Graph(x, ig.Node(ig.Node(x, ig.Coupling, layer, conditions=c), ig.Coupling, layer,
                                          conditions=c), c).double(), seed=2)  # fmt: skip
    given = values(coupling())
    found = []
    for runner in (graph, ig.reversible(graph)):
        result = runner.inverse(*given) if inverse else runner(*given)
        found.append(gradients(result, (*given, *graph.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def kept_bytes(layer: ig.Coupling, x: Tensor) -> int:
    """Return the bytes of all tensors, parameters apart, that a call keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = layer((x,))  # held until the end, lest memory be used twice
    del result
    return sum(kept.values())


def test_little_is_kept_for_the_way_back() -> None:
    """x, y, and for each side the hidden layer, the parameters and the scales; nothing twice."""
    layer = ig.Coupling((8,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=16))
    assert kept_bytes(layer, torch.randn(10, 8)) <= 4 * 10 * (8 + 8 + 2 * (16 + 8 + 4))


def test_a_result_changed_in_place_is_refused_by_the_backward_pass() -> None:
    layer = coupling()
    y, _ = run(layer, False, *values(layer))
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


class _Shifted(ig.Affine):
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = super().forward(x, params)
        return y + 1, log_det


def test_a_transform_derived_from_the_affine_one_is_asked_itself() -> None:
    layer, own = coupling((), sides=1, split=2), coupling((), sides=1, split=2, transform=_Shifted(clamp=1.0))
    own.load_state_dict(layer.state_dict())
    (x,) = values(layer)
    torch.testing.assert_close(run(own, False, x)[0][:, :2], run(layer, False, x)[0][:, :2] + 1)


class _Marked(Tensor):
    """A tensor of another type, as distributed and quantized ones are."""


def test_parameters_of_other_types_get_no_kernel() -> None:
    layer = coupling(())
    (x,) = values(layer)
    before, _ = run(layer, False, x)
    linear = layer.subnets[0][0].layers[1]
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(_Marked))
    assert type(linear.weight) is not nn.Parameter
    assert layer._kernel(x) is None
    torch.testing.assert_close(run(layer, False, x)[0].as_subclass(Tensor), before)


@pytest.mark.parametrize("sides", [1, 2])
def test_data_without_gradient_leave_those_of_the_parameters_as_they_are(sides: int) -> None:
    layer = randomize(ig.Coupling((5,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=6), sides=sides), 1).double()
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for start in (x, x.clone().requires_grad_()):
        (y,), log_det = layer((start,))
        found.append(torch.autograd.grad(y.square().sum() + log_det.sum(), list(layer.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_one_sided_coupling_keeps_neither_its_result_nor_its_shifts() -> None:
    layer = ig.Coupling((16,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=16), sides=1)
    data_hidden_and_scales_around_the_clamp = 16 + 16 + 8 + 8
    assert (
        kept_bytes(layer, torch.randn(64, 16, requires_grad=True)) == 4 * 64 * data_hidden_and_scales_around_the_clamp
    )


def _coupling() -> tuple[ig.Coupling, Tensor, Tensor]:
    layer = randomize(ig.Coupling((4,), ((3,),), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8)), seed=3)
    return layer, torch.randn(5, 4), torch.randn(5, 3)


def test_a_condition_layer_with_a_bias_keeps_it() -> None:
    layer, x, c = _coupling()
    (before,), _ = layer((x,), (c,))
    for net in layer.modules():
        if isinstance(getattr(net, "conditions", None), nn.ModuleList):
            net.conditions[0] = nn.Linear(3, 8)
    (y,), _ = layer((x,), (c,))
    with ig.fused(False):
        torch.testing.assert_close(y, layer((x,), (c,))[0][0])
    assert not torch.allclose(y, before)


def test_hooks_put_on_after_all_were_removed_are_called() -> None:
    """By a new dictionary, as a common recipe does."""
    layer, x, c = _coupling()
    layer((x,), (c,))
    calls = list[str]()
    for part in layer.modules():
        part._forward_hooks = OrderedDict()
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda *args: calls.append("hook"))
    layer((x,), (c,))
    assert len(calls) == sum(isinstance(part, nn.Linear) for part in layer.modules())
