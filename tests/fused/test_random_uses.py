"""Kernels on against kernels off, on layers that have been through several habits, with data of any layout.

The habits themselves, one at a time and in every runner, are in ``tests/habits``.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from cases import CASES, Case, _draw
from torch import Tensor, nn
from torch.nn.utils import parametrize

import invgraph as ig

POOL = [case for case in CASES if case.cls is not ig.Dequantize]  # its noise has tests of its own


@dataclass
class Use:
    """A layer in use: what is done to it, and what can be taken back."""

    rng: random.Random
    layer: ig.Invertible
    hooks: list[Any] = field(default_factory=list)
    patched: list[nn.Module] = field(default_factory=list)

    def parts(self, *kinds: Any) -> list[Any]:
        return [part for part in self.layer.modules() if isinstance(part, kinds)]

    @property
    def linear(self) -> Any:
        """A linear layer with a weight of its own; a new one outside of the layer if there is none."""
        found = [part for part in self.parts(nn.Linear, nn.Conv2d) if "weight" in dict(part.named_parameters())]
        return self.rng.choice(found) if found else nn.Linear(1, 1)

    touched: bool = False

    @property
    def called(self) -> Any:
        """A module that the layer calls, to put something on it that can't be pickled."""
        self.touched = True
        return self.rng.choice([*self.parts(nn.Linear, nn.Conv2d, nn.ReLU, nn.Sequential), nn.Identity()])

    @property
    def parameter(self) -> Tensor:
        return self.rng.choice([*self.layer.parameters(), nn.Parameter(torch.zeros(()))])


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.9 * weight + 0.01


def hook(use: Use) -> None:
    use.hooks.append(use.called.register_forward_hook(lambda module, args, output: 1.1 * output))


def backward_hook(use: Use) -> None:
    def scale(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        return tuple(None if grad is None else 1.5 * grad for grad in inputs)

    if not use.parts(ig.ContinuousFlow):  # which refuses it
        use.hooks.append(use.called.register_full_backward_hook(scale))


def unhook(use: Use) -> None:
    if use.hooks:
        use.hooks.pop().remove()


def patch(use: Use) -> None:
    layer = use.called
    forward = type(layer).forward
    layer.forward = lambda x: 1.2 * forward(layer, x)
    use.patched.append(layer)


def unpatch(use: Use) -> None:
    if use.patched:
        vars(use.patched.pop()).pop("forward", None)


def parametrized(use: Use) -> None:
    layer = use.linear
    if not parametrize.is_parametrized(layer):
        parametrize.register_parametrization(layer, "weight", Scaled())


def plain_again(use: Use) -> None:
    for layer in filter(parametrize.is_parametrized, use.parts(nn.Linear, nn.Conv2d)):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=use.rng.random() < 0.5)


def weight_of_no_parameter(use: Use) -> None:
    layer = use.linear
    weight = 0.7 * layer.weight.detach()
    del layer.weight
    layer.weight = weight


@torch.no_grad()
def in_place(use: Use) -> None:
    use.parameter.mul_(0.8)


def unseen(use: Use) -> None:
    use.parameter.data.mul_(0.8)


def other_memory(use: Use) -> None:
    parameter = use.parameter
    parameter.data = 0.9 * parameter.data


def step(use: Use) -> None:
    parameters = [parameter for parameter in use.layer.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.1)
    torch.optim.SGD([*parameters, nn.Parameter(torch.zeros(()))], lr=0.1).step()
    use.layer.zero_grad()


def other_function(use: Use) -> None:
    for part in use.parts(nn.Sequential, nn.ModuleList):
        for name, child in part.named_children():
            if type(child) is nn.ReLU:
                setattr(part, name, nn.Tanh())
                return


def other_linear(use: Use) -> None:
    for part in use.parts(nn.Sequential, nn.ModuleList):
        for name, child in part.named_children():
            if type(child) is nn.Linear:
                new = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None).double()
                setattr(part, name, new)
                return


def loaded(use: Use) -> None:
    state = {name: 0.9 * value if value.is_floating_point() and name in dict(use.layer.named_parameters()) else value
             for name, value in use.layer.state_dict().items()}  # fmt: skip
    use.layer.load_state_dict(copy.deepcopy(state), assign=use.rng.random() < 0.5)


def copied(use: Use) -> None:
    use.layer, use.hooks, use.patched = copy.deepcopy(use.layer), [], []


def pickled(use: Use) -> None:
    if not (use.touched or any(map(parametrize.is_parametrized, use.layer.modules()))):
        use.layer = pickle.loads(pickle.dumps(use.layer))


HABITS: Sequence[Callable[[Use], Any]] = (
    hook, backward_hook, unhook, patch, unpatch, parametrized, plain_again, weight_of_no_parameter, in_place, unseen,
    other_memory, step, other_function, other_linear, loaded, copied, pickled,
    lambda use: use.layer.train(not use.layer.training),
    lambda use: use.layer.float().double(),
    lambda use: use.parameter.requires_grad_(False) if use.parameter.is_leaf else None,
    lambda use: use.layer.requires_grad_(True),
)  # fmt: skip

LAYOUTS: Sequence[Callable[[Tensor], Tensor]] = (
    lambda x: x,
    lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    lambda x: x.repeat_interleave(2, 0)[::2],
    lambda x: x[:1].expand(x.shape) if len(x) else x,
    lambda x: x[:, :1].expand(x.shape),
    lambda x: torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape),
    lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
)


def draw(use: Use, case: Case, inverse: bool) -> list[Tensor]:
    """Values and conditions of a batch of 0, 1, 2 or 5."""
    rng, batch = use.rng, use.rng.choice((0, 1, 2, 5))
    shapes, domain = (use.layer.out_shapes, case.codomain) if inverse else (use.layer.in_shapes, case.domain)
    xs = _draw(shapes, domain, batch, torch.float64, rng.randrange(999))
    cs = _draw(use.layer.cond_shapes, None, batch, torch.float64, rng.randrange(999))
    return [rng.choice(LAYOUTS)(x).requires_grad_(rng.random() < 0.6) for x in (*xs, *cs)]


def weighed(tensors: Sequence[Tensor | None], function: Callable[[Tensor], Tensor]) -> Tensor:
    """A sum with other weights for each number, so that no two gradients cancel."""
    total = torch.zeros((), dtype=torch.float64)
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            source = torch.Generator().manual_seed(place)
            total = total + (function(tensor) * torch.randn(tensor.shape, dtype=torch.float64, generator=source)).sum()
    return total


def results(use: Use, values: Sequence[Tensor], inverse: bool, mode: str) -> list[Tensor]:
    """Results, and gradients of first and second order, zeros where there are none."""
    torch.manual_seed(0)  # layers with noise
    count = len(use.layer.out_shapes if inverse else use.layer.in_shapes)
    call: Any = use.layer.inverse if inverse else use.layer
    if mode in ("no_grad", "inference_mode"):
        with getattr(torch, mode)():
            ys, log_det = call(tuple(values[:count]), tuple(values[count:]))
        return [y.clone() for y in (*ys, log_det)]
    ys, log_det = call(tuple(values[:count]), tuple(values[count:]))
    leaves = [leaf for leaf in (*values, *use.layer.parameters()) if leaf.requires_grad]
    found = [*ys, log_det]
    loss = weighed({"all": found, "values": ys, "log_det": [log_det]}[mode.split()[0]], torch.sin)
    for _ in range(2 if "twice" in mode else 1):
        grads: Sequence[Tensor | None] = [None] * len(leaves)
        if loss.requires_grad and leaves:
            twice = "twice" in mode
            grads = torch.autograd.grad(loss, leaves, create_graph=twice, retain_graph=True, allow_unused=True)
        found += [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True)]
        loss = weighed(grads, torch.cos)
    return [value.detach() for value in found]


def try_one(seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    case = rng.choice(POOL)
    use = Use(rng, case.build())
    inverse, done = rng.random() < 0.4, list[str]()
    for _ in range(rng.randint(1, 4)):
        results(use, draw(use, case, inverse), inverse, "no_grad")  # what is kept from now on may be out of date then
        habit = rng.choice(HABITS)
        habit(use)
        done.append(getattr(habit, "__name__", ""))
        orders = ("all", "values", "log_det") if use.touched else ("all", "all twice", "values twice", "log_det twice")
        mode = rng.choice((*orders, "no_grad", "inference_mode"))
        values = draw(use, case, inverse)
        buffers = copy.deepcopy(list(use.layer.buffers()))
        got: list[list[Tensor]] = []
        for kernels in (True, False):
            with torch.no_grad():
                for buffer, value in zip(use.layer.buffers(), buffers, strict=True):
                    buffer.copy_(value)
            with ig.fused(kernels):
                got.append(results(use, values, inverse, mode))
        shapes = [(tuple(value.shape), value.stride()) for value in values]
        what = f"seed {seed}, {case.id}, inverse={inverse}: {done}, {mode}, {shapes}"
        try:
            torch.testing.assert_close(*got, rtol=1e-7, atol=1e-8, equal_nan=True)
        except AssertionError as error:
            raise AssertionError(f"{what}\n{error}") from None


@pytest.mark.parametrize(
    "seeds", [range(14), *(pytest.param(range(k, k + 300), marks=pytest.mark.slow) for k in range(1000, 2500, 300))]
)
@pytest.mark.filterwarnings("ignore")
def test_kernels_change_nothing_whatever_was_done_before(seeds: range) -> None:
    for seed in seeds:
        try_one(seed)
