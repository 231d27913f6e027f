"""Kernels of channels give what plain operations give: a matrix in its factors, and scales and shifts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measures import assert_as_without_kernels
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize


def build(kind: Any, shape: tuple[int, ...]) -> tuple[Any, Tensor]:
    layer: Any = randomize(kind(shape), seed=1).double()
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if kind is ig.ActNorm:
        layer.initialize((x,), again=True)
    return layer, x.requires_grad_()


def gradients(layer: Any, x: Tensor, order: int) -> list[Tensor]:
    (y,), log_det = layer((x,))
    weights = torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)
    loss = (y.square() * weights).sum() + log_det.square().sum()
    leaves = [x, *layer.parameters()]
    grads = list(torch.autograd.grad(loss, leaves, create_graph=order > 1))
    if order > 1:
        loss = torch.stack([grad.square().sum() for grad in grads]).sum()
        grads += torch.autograd.grad(loss, leaves)
    return [y, log_det, *grads]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", [(5,), (4, 3, 2)])
@pytest.mark.parametrize("kind", [ig.Conv1x1, ig.ActNorm])
def test_they_are_what_plain_operations_give(kind: Any, shape: tuple[int, ...], order: int) -> None:
    layer, x = build(kind, shape)
    assert_as_without_kernels(lambda: gradients(layer, x, order), lambda: layer((x,))[0][0], 1e-10)


def test_the_inverse_matrix_of_samples_follows_every_change_of_the_parameters() -> None:
    layer, x = build(ig.Conv1x1, (4, 3, 2))
    with torch.no_grad():
        for _ in range(2):
            for parameter in layer.parameters():
                parameter.data.mul_(0.9)  # a change that torch does not count
                (back,), _ = layer.inverse(layer((x,))[0])
                torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
        first = layer._fused.value
        layer.inverse((x,))
        assert layer._fused.value is first
        layer.float()
        assert layer.inverse((x.float(),))[0][0].dtype == torch.float32


def test_scaled_channels_keep_their_result_which_the_next_layer_keeps_as_well() -> None:
    layer, x = build(ig.ActNorm, (4, 3, 2))
    kept: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        (y,), _ = layer((x,))
    assert kept == {y.untyped_storage().data_ptr()}
