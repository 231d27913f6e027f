"""Things that people put on layers: the table of tests/support/adapters.py, and hooks on every module."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import adapters
import torch
from found import compare, found
from torch import nn

import invgraph as ig

from .cell import RUNNERS, Cell, habit, ignoring, repeated
from .graphs import built

CODE = {
    "forward hook that observes": "layer.register_forward_hook(observe)",
    "forward pre-hook that changes the input": "layer.register_forward_pre_hook(change)",
    "forward hook that changes the output": "layer.register_forward_hook(change)",
    "full backward hook": "layer.register_full_backward_hook(change)",
    "full backward pre-hook": "layer.register_full_backward_pre_hook(change)",
    "global forward hook": "nn.modules.module.register_module_forward_hook(hook)",
    "global backward hook": "nn.modules.module.register_module_full_backward_hook(hook)",
    "LoRA wrapper": "subnet[0] = Lora(subnet[0])",
    "LoRA subclass put in place": "subnet[0] = LoraLinear(subnet[0])",
    "LoRA subclass by change of class": "layer.__class__ = LoraLinear",
    "weight_norm, old": "nn.utils.weight_norm(layer)",
    "weight_norm, parametrization": "nn.utils.parametrizations.weight_norm(layer)",
    "spectral_norm, old": "nn.utils.spectral_norm(layer)",
    "spectral_norm, parametrization": "nn.utils.parametrizations.spectral_norm(layer)",
    "pruned": 'nn.utils.prune.l1_unstructured(layer, "weight", 0.4)',
    "parametrized": 'nn.utils.parametrize.register_parametrization(layer, "weight", p)',
    "int8 weights": "subnet[0] = Int8Linear(subnet[0])",
    "forward patched on the instance": "layer.forward = types.MethodType(forward, layer)",
    "forward patched on the class": "nn.Linear.forward = forward",
    "data-parallel replica": "nn.DataParallel(graph)",
}
BACKWARD = (
    "register a hook on a tensor instead, or compile with ``fullgraph=False``; ``torch.func``, with which "
    "``ContinuousFlow`` computes its trace, can't run them either"
)
WHY = {
    "full backward hook": f"torch can't compile these hooks: {BACKWARD}",
    "full backward pre-hook": f"torch can't compile these hooks: {BACKWARD}",
    "global backward hook": f"torch can't compile these hooks: {BACKWARD}",
    "spectral_norm, old": "in evaluation mode; in training mode see below",
    "spectral_norm, parametrization": "in evaluation mode; in training mode see below",
    "data-parallel replica": "a replica has no parameters of its own that could be exported",
}
EXPORTED = {
    "LoRA wrapper", "LoRA subclass put in place", "LoRA subclass by change of class", "weight_norm, old",
    "weight_norm, parametrization", "spectral_norm, old", "spectral_norm, parametrization", "pruned", "parametrized",
    "int8 weights", "forward pre-hook that changes the input", "forward hook that changes the output",
    "forward patched on the instance", "forward patched on the class",
}  # fmt: skip


def put(cell: Cell, row: adapters.Habit) -> None:
    """Put it on every layer; values are those of merged weights, gradients those of the graph without kernels."""
    watch = adapters.Watch([])
    merged = copy.deepcopy(cell.graph)
    amounts = [row.put(place, watch) for place in adapters.places(cell.graph)]
    cell.graph.eval()
    adapters.merge(merged, amounts)
    parameters = tuple(cell.graph.parameters())
    graph: Any = cell.graph if row.copies is None else row.copies(cell.graph)
    alone = ig.Inverse(merged) if cell.inverse else merged
    with torch.no_grad(), ig.fused(False):
        by_hand = found(lambda xs, cs: alone(xs, repeated(cs)), cell.leaves(), (), False)
    with row.during(watch) if row.during else nullcontext():
        call = graph.inverse if cell.inverse else graph
        with ig.fused(False):
            right = found(lambda xs, cs: call(xs, repeated(cs)), cell.leaves(), parameters, True)
        compare(by_hand, right, "merged by hand")
        before = watch.calls
        compare(cell.run(cell.module(graph), parameters), right, f"{cell.name}, {cell.runner}")
        if row.counts == "forward" or (row.counts == "backward" and cell.compares_gradients):
            assert watch.calls - before >= len(adapters.places(cell.graph)), "some hooks were not called"


COMPILED = r"torch can't compile them.*fullgraph=False"
TRACED = "such as a full backward hook"
NO_BACKWARD_HOOKS = {"compiled": COMPILED, ("continuous", "compiled"): f"{COMPILED}|{TRACED}", "continuous": TRACED}


def add(name: str, row: adapters.Habit) -> None:
    refused = NO_BACKWARD_HOOKS if row.counts == "backward" else {}
    runners = RUNNERS if name in EXPORTED else RUNNERS[:4]
    habit(name, CODE[name], WHY.get(name, ""), runners=runners, refused=refused)(lambda cell: put(cell, row))


for name, row in adapters.HABITS.items():
    add(name, row)


@habit("forward hooks on every module", "for m in graph.modules(): m.register_forward_hook(hook)")
def forward_hooks(cell: Cell) -> None:
    seen = set()
    for module in cell.graph.modules():
        module.register_forward_hook(lambda m, *_: seen.add(m))
        module.register_forward_pre_hook(lambda m, *_: None)
    cell.agree()
    layers = {place.layer for place in adapters.places(cell.graph)}
    assert layers <= seen
    if not cell.inverse and cell.runner in ("plain", "compiled"):
        assert {cell.graph, *(m for m in cell.graph.layers.values() if isinstance(m, ig.Invertible))} <= seen


@habit("full backward hooks on every module", "for m in graph.modules(): m.register_full_backward_hook(hook)",
       f"torch can't compile these hooks: {BACKWARD}",
       refused=NO_BACKWARD_HOOKS)  # fmt: skip
def backward_hooks(cell: Cell) -> None:
    seen = set()
    for module in cell.graph.modules():
        module.register_full_backward_hook(lambda m, *_: seen.add(m))
    with ignoring("Full backward hook is firing"):
        cell.agree()
    assert {place.layer for place in adapters.places(cell.graph)} <= seen


@habit("spectral_norm in training mode", "nn.utils.parametrizations.spectral_norm(layer); graph.train()",
       "its buffers change at each call, so the backward pass can't run a layer again: call ``.eval()`` on it, or "
       "train the plain graph", refused={"reversible": "buffers change at each call"},
       runners=("plain", "reversible"))  # fmt: skip
def spectral_norm_in_training(cell: Cell) -> None:
    for place in adapters.places(cell.graph):
        nn.utils.parametrizations.spectral_norm(place.layer)
    other = copy.deepcopy(cell.graph)
    assert any(a is not b for a, b in zip(other.buffers(), cell.graph.buffers(), strict=True))
    module = cell.module(cell.graph.train())
    torch.manual_seed(1)
    got = cell.run(module)
    call = other.train().inverse if cell.inverse else other.train()
    torch.manual_seed(1)
    with ig.fused(False):
        right = found(lambda xs, cs: call(xs, repeated(cs)), cell.leaves(), tuple(other.parameters()), True)
    compare(got, right, cell.name)


@habit("dynamic quantization of subnets", "torch.ao.quantization.quantize_dynamic(graph.float(), {nn.Linear})",
       "without gradients, in single precision", runners=("plain", "bound", "reversible"),
       without=frozenset({"image", "residual"}))  # fmt: skip
def quantized(cell: Cell) -> None:
    with ignoring(".*quantiz.*"):
        graph = torch.ao.quantization.quantize_dynamic(cell.graph.float(), {nn.Linear})
        assert any("quantized" in type(module).__module__ for module in graph.modules())
        leaves = cell.leaves(torch.float32)
        call = graph.inverse if cell.inverse else graph
        module = cell.module(graph)
        with torch.no_grad():
            with ig.fused(False):
                right = found(lambda xs, cs: call(xs, repeated(cs)), leaves, (), False)
            compare(found(lambda xs, cs: module(xs, cell.given(cs)), leaves, (), False), right, cell.name, 1e-4)


@habit("frozen parts", "for p in subnet.parameters(): p.requires_grad_(False)")
def frozen(cell: Cell) -> None:
    for index, parameter in enumerate(cell.graph.parameters()):
        parameter.requires_grad_(index % 3 != 0)
    got = cell.run(cell.module())
    right = dict(cell.right)
    right["parameter gradients"] = [g for index, g in enumerate(right["parameter gradients"]) if index % 3]
    compare(got, right, cell.name)
    assert all(p.grad is None for p in built(cell.name).parameters())


@habit("everything frozen", "flow.requires_grad_(False)", runners=RUNNERS)
def all_frozen(cell: Cell) -> None:
    cell.graph.requires_grad_(False)
    got = cell.run(cell.module())
    assert got.pop("parameter gradients", []) == []
    compare(got, cell.right, cell.name)
