"""Constants from seeds: drawn on the CPU in a dtype of their own, moved to the defaults where the layer is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, Case
from defaults import default_dtype
from torch import Tensor

import invgraph as ig
from invgraph.numerics.seeding import generator, normal, to_defaults

SEEDED: dict[str, Any] = {
    "Permute": lambda: ig.Permute((6,), seed=3),
    "Orthogonal": lambda: ig.Orthogonal((6,), seed=3),
    "OrthogonalLinear": lambda: ig.OrthogonalLinear((6,), seed=3),
    "Conv1x1": lambda: ig.Conv1x1((6,), seed=3),
    "Conv1x1 orthogonal": lambda: ig.Conv1x1((6,), seed=3, orthogonal=True),
    "Householder": lambda: ig.Householder((6,), seed=3),
    "LowRankLinear": lambda: ig.LowRankLinear((6,), rank=2, seed=3),
    "GaussianMixture": lambda: ig.GaussianMixture((6,), ((3,),), seed=3),
    "AllInOne soft": lambda: ig.AllInOne((6,), subnet=zeros, householder=2, seed=3),
    "AllInOne hard": lambda: ig.AllInOne((6,), subnet=zeros, householder=2, seed=3, permutation="hard"),
    "Dequantize": lambda: ig.Dequantize((6,), seed=3),
}


def zeros(channels_in: int, channels_out: int) -> torch.nn.Module:
    """A subnet that draws nothing."""
    net = torch.nn.Linear(channels_in, channels_out)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    return net


def tensors(module: ig.Invertible) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_layer_can_be_built_on_the_meta_device(case: Case) -> None:
    with torch.device("meta"):
        module = case.make() if case.make else case.cls(case.in_shapes, case.cond_shapes, **case.args)
    assert [name for name, tensor in tensors(module).items() if not tensor.is_meta] == []
    with torch.device("meta"):
        ig.testing.randomize(module)


@pytest.mark.parametrize("name", SEEDED)
def test_the_default_dtype_does_not_change_what_a_seed_draws(name: str) -> None:
    narrow = tensors(SEEDED[name]())
    with default_dtype(torch.float64):
        wide = tensors(SEEDED[name]())
    assert narrow.keys() == wide.keys()
    for key, value in narrow.items():
        assert wide[key].dtype == (torch.float64 if value.is_floating_point() else value.dtype)
        assert torch.equal(wide[key].to(value.dtype), value), key


@pytest.mark.parametrize("name", SEEDED)
def test_what_a_seed_draws_leaves_the_global_state_alone(name: str) -> None:
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(5)
        before = torch.get_rng_state()
        layer = SEEDED[name]()
        drawn = any(isinstance(module, torch.nn.Linear) for module in layer.modules())
        assert drawn or torch.equal(before, torch.get_rng_state())


def test_helpers_on_another_device() -> None:
    source = generator(1)
    with torch.device("meta"):
        first, second = normal((2, 3), source), normal((2, 3), source)
        assert to_defaults(first).is_meta
        assert first.device.type == second.device.type == "cpu"
        assert first.dtype == torch.float64
    assert torch.equal(first, normal((2, 3), 1))
    assert not torch.equal(first, second)
    assert to_defaults(torch.zeros(2, dtype=torch.int64)).dtype == torch.int64
    assert to_defaults(first).dtype == torch.float32
