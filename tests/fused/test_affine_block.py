"""The kernel of all-in-one blocks gives the results and gradients of plain operations, to any order."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from measures import assert_as_without_kernels
from torch import Tensor

import invgraph as ig
from invgraph.fused import affine_block
from invgraph.fused.affine_block import AffineBlockKernel
from invgraph.testing import randomize

MLP, CONV = ig.nets.MLP(hidden=6), ig.nets.ConvNet(hidden=4)


def blocks() -> list[Any]:
    kinds = [
        ((5,), MLP, {}),
        ((5,), MLP, {"permutation": "hard", "damping": 0.3}),
        ((4, 3, 3), CONV, {"permutation": "hard", "split": 1}),
        ((4, 2, 2), CONV, {"damping": 0.2, "scale": False, "reverse": True}),
        ((4, 2, 2), CONV, {"householder": 2}),
    ]
    clamps = [{"activation": kind} for kind in ("atan", "tanh", "sigmoid")]
    return [
        pytest.param(shape, {"subnet": net, "transform": ig.Affine(clamp=1.3, **clamp), **args}, id=f"{place}-{name}")
        for place, (shape, net, args) in enumerate(kinds)
        for clamp in (clamps if place == 1 else clamps[:1])
        for name in clamp.values()
    ]


def build(shape: tuple[int, ...], args: dict[str, Any]) -> tuple[ig.AllInOne, Tensor]:
    block = randomize(ig.AllInOne(shape, **args), seed=1).double()
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return block, x.requires_grad_()


def gradients(block: ig.AllInOne, x: Tensor) -> list[Tensor]:
    (y,), log_det = block((x,))
    loss = (y.square() * torch.linspace(0, 1, y[0].numel(), dtype=y.dtype).view_as(y[0])).sum() + log_det.square().sum()
    return [y, log_det, *torch.autograd.grad(loss, [x, *block.parameters()])]


@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize(("shape", "args"), blocks())
def test_it_is_what_plain_operations_give(
    shape: tuple[int, ...], args: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all rows at once, or on a few at a time."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(affine_block, "_BLOCK_ELEMENTS", rows * math.prod(shape))
    block, x = build(shape, args)
    assert_as_without_kernels(lambda: gradients(block, x), lambda: block((x,))[0][0], 1e-11)


def test_a_gpu_gets_all_rows_at_once_and_each_thread_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affine_block, "_BLOCK_ELEMENTS", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x = torch.empty(7, 10)
    assert [x[rows].shape[0] for rows in affine_block._blocks_of_rows(x)] == [2, 2, 2, 1]
    assert [x[rows].shape[0] for rows in affine_block._blocks_of_rows(x.to("meta"))] == [7]


def test_a_batch_without_rows() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard"})
    (y,), log_det = block((x[:0],))
    (y.sum() + log_det.sum()).backward()
    assert y.shape == (0, 5)
    assert block.shift.grad is not None
    assert not block.shift.grad.any()


def test_gradients_of_a_value_that_others_read_as_well() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard"})

    def results() -> list[Tensor]:
        h = x * 1
        (y,), log_det = block((h,))
        loss = (y * h).square().sum() + log_det.sum() + h.pow(3).sum()
        grads = torch.autograd.grad(loss, [x, *block.parameters()], retain_graph=True)
        again = torch.autograd.grad(loss, x, retain_graph=True)
        several = torch.autograd.grad(y, x, torch.stack((y.detach(), x.detach())), True, is_grads_batched=True)
        jacobian = torch.autograd.grad(log_det, x, torch.eye(3, dtype=x.dtype), is_grads_batched=True)
        return [y, *grads, *again, *several, *jacobian]

    assert_as_without_kernels(results, lambda: block((x,))[0][0], 1e-11)


def test_a_hook_on_what_the_subnet_reads_sees_the_whole_gradient() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard"})

    def results() -> list[Tensor]:
        read: list[Tensor] = []
        handle = block.subnet.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        (y,), log_det = block((x,))
        handle.remove()
        return [y, *torch.autograd.grad(y.square().sum() + log_det.square().sum(), [*read, x])]

    assert_as_without_kernels(results, lambda: block((x,))[0][0], 1e-11)


def test_second_derivatives_go_through_plain_operations() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard", "damping": 0.5})
    assert torch.autograd.gradgradcheck(lambda x: block((x,))[0][0].square().sum(), (x,))


def test_second_derivatives_of_the_shift_alone() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard"})
    shift = block.requires_grad_(False).shift.requires_grad_()

    def results() -> list[Tensor]:
        (y,), log_det = block((x.detach(),))  # which does not depend on the shift
        (slope,) = torch.autograd.grad(y.pow(3).sum() + log_det.sum(), shift, create_graph=True)
        return [y, slope, *torch.autograd.grad(slope.sum(), shift)]

    assert_as_without_kernels(results, lambda: block((x,))[0][0], 1e-11)


def test_a_gain_that_is_rounded_to_zero_has_a_gradient() -> None:
    block, x = build((5,), {"subnet": MLP})
    with torch.no_grad():
        block.log_scale[0] = -800  # type: ignore[index]
    (y,), _ = block((x,))
    y.sum().backward()
    assert block.log_scale is not None
    assert block.log_scale.grad is not None
    assert block.log_scale.grad[0] == 0
    assert bool(block.log_scale.grad.isfinite().all())


@pytest.mark.parametrize("learned", ["rotation", "reflections"])
def test_a_learned_rotation_has_a_gradient(learned: str) -> None:
    block, x = build((5,), {"subnet": MLP, "householder": 1 if learned == "reflections" else 0})
    matrix = getattr(block, learned).requires_grad_()
    found = []
    for enabled in (True, False):
        with ig.fused(enabled):
            found.append(torch.autograd.grad(block((x,))[0][0].square().sum() + (block((x,))[0][0] ** 3).sum(), matrix))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("permutation", ["soft", "hard"])
def test_little_is_kept_for_the_backward_pass(permutation: Any) -> None:
    """x, the subnet's output and the scales; with the gain and shift, and for a soft permutation no more either."""
    block, x = build((8, 4, 4), {"subnet": CONV, "permutation": permutation})
    kept: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in block.state_dict().values()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    kernel = block._kernel(x)
    assert kernel
    first, second = x.split(block.sizes, dim=1)
    params = block._params(second, ())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kernel.run(first, second, params, torch.ones_like(block.shift), block.shift)
    assert sum(kept.values()) <= 8 * 3 * 16 * (8 + 8 + 4) + 3 * 64


@pytest.mark.parametrize("permutation", ["soft", "hard"])
def test_second_derivatives_are_those_of_the_buffers_of_the_call(permutation: Any) -> None:
    """In an ensemble, the block is called with another's parameters and buffers, and differentiated later."""
    (one, x), (other, _) = (build((5,), {"subnet": MLP, "permutation": permutation, "seed": k}) for k in (1, 2))
    x.requires_grad_()
    found = []
    for y in (torch.func.functional_call(one, dict(other.state_dict()), ((x,),))[0][0], other((x,))[0][0]):
        (grad,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), x)[0])
    torch.testing.assert_close(*found)


def test_an_order_that_is_overwritten_between_the_passes_is_noticed() -> None:
    block, x = build((5,), {"subnet": MLP, "permutation": "hard"})
    loss = block((x,))[0][0].square().sum()
    block.inverse_order.copy_(block.order)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("permutation", ["soft", "hard"])
def test_a_result_may_be_changed_in_place(permutation: Any) -> None:
    block, x = build((4, 3, 3), {"subnet": CONV, "permutation": permutation})
    (y,), _ = block((x,))
    y.mul_(2)
    y.sum().backward()
    assert block.shift.grad is not None


def test_data_with_a_mean_lose_no_digits() -> None:
    """Scales folded into the rotation would add large terms that cancel."""
    block = ig.AllInOne((64,), subnet=MLP, seed=0)
    x = torch.randn(400, 64) + 100
    block.initialize((x,))
    exact = copy.deepcopy(block).double()((x.double(),))[0][0]
    assert (block((x,))[0][0] - exact).abs().max() < 3e-5


def test_derived_transforms_and_single_channels_have_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(ig.Affine):
        pass

    def refuse(*arguments: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(AffineBlockKernel, "run", refuse)
    for args in ({"transform": Mine()}, {"transform": ig.RationalQuadraticSpline()}):
        ig.AllInOne((4,), subnet=MLP, **args)((torch.zeros(1, 4),))
    ig.AllInOne((1,), ((2,),), subnet=MLP)((torch.zeros(1, 1),), (torch.zeros(1, 2),))
    with pytest.raises(AssertionError):
        ig.AllInOne((4,), subnet=MLP)((torch.zeros(1, 4),))
