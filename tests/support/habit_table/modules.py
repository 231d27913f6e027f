"""Wrappers, shards and swaps of modules and tensors that torch offers, and other ways to derivatives."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from found import compare, weighed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import invgraph as ig

from .cell import Cell, habit, ignoring, repeated
from .training import backward, one_process

RUNNERS = ("plain", "bound", "reversible")
WRAPPED = "a reversible graph calls each layer in both directions, and refuses layers in wrappers"
UNMAPPED = frozenset({"integers"})
"""Graphs that ``torch.func`` can't map: a dequantization looks at its data."""


@habit("hooks of load_state_dict", "layer.register_load_state_dict_post_hook(hook)", "``ig.load`` calls them too",
       runners=RUNNERS)  # fmt: skip
def load_hooks(cell: Cell) -> None:
    seen: list[int] = []
    parts = list(cell.graph.modules())
    for part in parts:
        part.register_load_state_dict_pre_hook(lambda *_: seen.append(0))
        part.register_load_state_dict_post_hook(lambda *_: seen.append(1))
    cell.graph.load_state_dict(cell.graph.state_dict())
    assert len(seen) == 2 * len(parts)
    cell.agree()


@habit("swap_tensors", "torch.utils.swap_tensors(parameter, other)", runners=RUNNERS)
def swapped(cell: Cell) -> None:
    others = [p.detach().clone().requires_grad_() for p in cell.graph.parameters()]
    module = cell.module()
    with torch.no_grad():
        for parameter in cell.graph.parameters():
            parameter.mul_(0.5)
    cell.run(module)
    for parameter, other in zip(cell.graph.parameters(), others, strict=True):
        torch.utils.swap_tensors(parameter, nn.Parameter(other))
    cell.agree(module)


@habit("new parameters on conversion", "torch.__future__.set_overwrite_module_params_on_conversion(True)",
       runners=RUNNERS)  # fmt: skip
def overwritten(cell: Cell) -> None:
    module = cell.module()
    cell.run(module)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        cell.graph.float().double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    cell.agree(module, tolerance=1e-4)


@habit("changes through .data", "parameter.data.mul_(decay)",
       "also through arrays that share memory, which torch does not count as changes", runners=RUNNERS)  # fmt: skip
def changed_unseen(cell: Cell) -> None:
    module, saved = cell.module(), [p.detach().clone() for p in cell.graph.parameters()]
    for parameter in cell.graph.parameters():
        parameter.data.mul_(0.5)
    cell.run(module)
    cell.run(module, gradients=False)
    for parameter, value in zip(cell.graph.parameters(), saved, strict=True):
        parameter.data.copy_(value)
    compare({"values": cell.run(module, gradients=False)["values"]}, cell.right, cell.name)
    cell.agree(module)


@habit("two backward passes", "loss.backward(retain_graph=True); loss.backward()", runners=RUNNERS)
def backward_twice(cell: Cell) -> None:
    xs, cs = cell.leaves()
    ys, log_det = cell.module()(xs, cell.given(cs))
    loss, parameters = weighed([*ys, log_det]), tuple(cell.graph.parameters())
    for retain in (True, True, False):
        grads = torch.autograd.grad(loss, (*xs, *cs, *parameters), retain_graph=retain, allow_unused=True)
        got = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, (*xs, *cs, *parameters), strict=True)]
        compare({"data gradients": got[:2], "parameter gradients": got[2:]}, cell.right, cell.name)


@habit("activations kept on the CPU", "with torch.autograd.graph.save_on_cpu(): flow.loss(x, c)", runners=RUNNERS)
def saved_elsewhere(cell: Cell) -> None:
    module = cell.module()

    def call(xs: Any, cs: Any) -> Any:
        with torch.autograd.graph.save_on_cpu():
            return module(xs, cs)

    cell.agree(call)


@habit("selective checkpointing", "with ig.fused(False): checkpoint(graph, x, c, context_fn=...)",
       "it keeps results that kernels change in place: turn the kernels off", runners=RUNNERS)  # fmt: skip
def rematerialized_in_part(cell: Cell) -> None:
    module, kept = cell.module(), [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
    contexts = functools.partial(create_selective_checkpoint_contexts, kept)
    with ig.fused(False):
        cell.agree(lambda xs, cs: checkpoint(module, xs, cs, use_reentrant=False, context_fn=contexts))


@habit("layers in checkpoint wrappers", "apply_activation_checkpointing(graph, check_fn=...)", WRAPPED,
       runners=RUNNERS, refused={"reversible": "a layer in a CheckpointWrapper"})  # fmt: skip
def wrapped(cell: Cell) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    def is_layer(module: nn.Module) -> bool:
        return any(module is layer for layer in cell.graph.layers.values())

    apply_activation_checkpointing(cell.graph, check_fn=is_layer)
    cell.agree()


@habit("torch.compile of a layer", 'graph.layers["a"] = torch.compile(graph["a"])',
       "``graph.compile()`` compiles equal layers once; " + WRAPPED, runners=RUNNERS,
       refused={"reversible": "a layer in a OptimizedModule"})  # fmt: skip
def compiled_in_part(cell: Cell) -> None:
    torch._dynamo.reset()
    name = list(cell.graph.layers)[-1]
    cell.graph.layers[name] = torch.compile(cell.graph.layers[name], backend="eager")  # type: ignore[assignment]
    cell.agree()


@habit("weights from a hypernetwork", "del layer.weight; layer.weight = network(c)",
       "a reversible graph finds gradients of parameters only: call it through ``torch.func.functional_call``",
       runners=RUNNERS, refused={"reversible": "which is not a parameter"})  # fmt: skip
def computed(cell: Cell) -> None:
    leaves = []
    for name, parameter in list(cell.graph.named_parameters()):
        path, _, own = name.rpartition(".")
        part = cell.graph.get_submodule(path)
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            leaf = parameter.detach().clone().requires_grad_()
            delattr(part, own)
            setattr(part, own, 1.0 * leaf)
            leaves.append(leaf)
        else:
            leaves.append(parameter)
    cell.agree(parameters=leaves)


@contextmanager
def mesh() -> Iterator[Any]:
    from torch.distributed.device_mesh import init_device_mesh

    with one_process():
        yield init_device_mesh("cpu", (1,))


@habit("FSDP2", "fully_shard(layer) for each layer; fully_shard(graph)",
       "FSDP2 gathers parameters only for a call of a whole layer; these runners call a layer twice, or a part of it",
       runners=RUNNERS, refused=dict.fromkeys(("bound", "reversible"), "sharded parameters"))  # fmt: skip
def sharded(cell: Cell) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # A layer that returns a view must not be followed by operations in place; a graph has none.
    with mesh() as devices, ignoring(".*FSDP2-wrapped module"):
        for layer in cell.graph.layers.values():
            if next(layer.parameters(), None) is not None:
                fully_shard(layer, mesh=devices)
                if isinstance(layer, ig.Invertible):
                    register_fsdp_forward_method(layer, "inverse")  # type: ignore[arg-type]
        module = cell.module()
        fully_shard(module, mesh=devices)
        got = backward(cell, module, ())
    del got["parameter gradients"]
    compare(got, cell.right, cell.name)


@habit("FSDP", "FullyShardedDataParallel(graph, use_orig_params=True)", runners=RUNNERS)
def sharded_flat(cell: Cell) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    with one_process(), ignoring(".*FSDP", ".*deprecated"):
        module = FullyShardedDataParallel(cell.module(), device_id=torch.device("cpu"), use_orig_params=True)
        got = backward(cell, module, ())
    del got["parameter gradients"]
    compare(got, cell.right, cell.name)


@habit("hooks of gradients", "parameter.register_post_accumulate_grad_hook(step)", runners=RUNNERS)
def accumulated_hooks(cell: Cell) -> None:
    parameters = tuple(cell.graph.parameters())
    seen: list[Tensor] = []
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(seen.append)
        parameter.register_hook(lambda grad: 1.0 * grad)
    compare(backward(cell, cell.module(), parameters), cell.right, cell.name)
    assert len({id(parameter) for parameter in seen}) == len(seen)


def _flat(cell: Cell, module: Callable[..., Any], given: Callable[..., Any]) -> tuple[Callable[..., Any], Tensor]:
    """The values and the log-determinant as functions of the data, and the data."""
    (x,), cs = (tuple(t.detach() for t in ts) for ts in cell.leaves())

    def call(values: Tensor) -> tuple[Tensor, ...]:
        ys, log_det = module((values,), given(cs))
        return *ys, log_det

    return call, x


def _plain(cell: Cell) -> Callable[..., Any]:
    graph = copy.deepcopy(cell.graph)
    call: Callable[..., Any] = graph.inverse if cell.inverse else graph
    return call


@habit("forward-mode derivatives", "torch.func.jvp(lambda x: graph(x, c), (x,), (tangent,))", runners=RUNNERS)
def forward_mode(cell: Cell) -> None:
    call, x = _flat(cell, cell.module(), cell.given)
    tangent = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    _, got = torch.func.jvp(call, (x,), (tangent,))
    with ig.fused(False):
        plain, _ = _flat(cell, _plain(cell), repeated)
        _, right = torch.autograd.functional.jvp(plain, (x,), (tangent,))
    torch.testing.assert_close(got, right, rtol=1e-8, atol=1e-8)


@habit("second derivatives by torch.func", "torch.func.hessian(lambda x: graph(x, c)[1].sum())(x)",
       "``reversible`` gives way to the plain graph inside ``torch.func``", runners=RUNNERS,
       without=UNMAPPED)  # fmt: skip
def hessian(cell: Cell) -> None:
    call, x = _flat(cell, cell.module(), cell.given)
    got = torch.func.hessian(lambda row: call(torch.cat((row, x[1:])))[-1].sum())(x[:1])
    with ig.fused(False):
        plain, _ = _flat(cell, _plain(cell), repeated)
        right = torch.autograd.functional.hessian(lambda row: plain(torch.cat((row, x[1:])))[-1].sum(), x[:1])
    torch.testing.assert_close(got, right, rtol=1e-7, atol=1e-7)


@habit("several gradients at once", "torch.autograd.functional.jacobian(call, x, vectorize=True)", runners=RUNNERS)
def batched(cell: Cell) -> None:
    call, x = _flat(cell, cell.module(), cell.given)
    got = torch.autograd.functional.jacobian(lambda x: call(x)[-1], x, vectorize=True)
    with ig.fused(False):
        plain, _ = _flat(cell, _plain(cell), repeated)
        right = torch.autograd.functional.jacobian(lambda x: plain(x)[-1], x)
    torch.testing.assert_close(got, right, rtol=1e-8, atol=1e-8)
