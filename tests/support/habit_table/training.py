"""Ways to train: in parallel, in parts, with less memory, compiled from outside, and layers with modes of their own."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from found import Found, compare, found, weighed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import invgraph as ig
from invgraph.testing import randomize

from .cell import RUNNERS, Cell, habit, ignoring, repeated


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", store=dist.FileStore(str(Path(folder, "store")), 1), rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def backward(cell: Cell, module: Callable[..., Any], parameters: Sequence[Tensor], times: int = 1) -> Found:
    """Values that a call finds with ``loss.backward()``, so that hooks of parameters are called."""
    xs, cs = cell.leaves()
    ys, log_det = module(xs, cell.given(cs))
    outputs = [*ys, log_det]
    (weighed(outputs) / times).backward()
    return {
        "values": [y.detach() for y in outputs],
        "data gradients": [torch.zeros_like(t) if t.grad is None else t.grad * times for t in (*xs, *cs)],
        "parameter gradients": [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters],
    }


DDP = ("plain", "reversible", "compiled")


@habit("DDP", "DistributedDataParallel(graph)", "the inverse trains as ``DistributedDataParallel(Inverse(graph))``",
       runners=DDP)  # fmt: skip
def data_parallel(cell: Cell) -> None:
    _distributed(cell)


@habit("DDP with find_unused_parameters", "DistributedDataParallel(graph, find_unused_parameters=True)", runners=DDP)
def unused(cell: Cell) -> None:
    with ignoring("find_unused_parameters=True was specified"):
        _distributed(cell, find_unused_parameters=True)


@habit("DDP with static_graph", "DistributedDataParallel(graph, static_graph=True)", runners=DDP)
def static(cell: Cell) -> None:
    _distributed(cell, static_graph=True)


def _distributed(cell: Cell, **options: Any) -> None:
    with one_process():
        module = DistributedDataParallel(cell.module(), **options)
        for _ in range(2):
            cell.graph.zero_grad()
            compare(backward(cell, module, tuple(cell.graph.parameters())), cell.right, cell.name)


@habit("accumulation under no_sync", "with ddp.no_sync(): loss(ddp, part).backward()", runners=DDP)
def accumulated(cell: Cell) -> None:
    with one_process():
        module = DistributedDataParallel(cell.module())
        with module.no_sync():
            backward(cell, module, (), times=2)
        compare(backward(cell, module, tuple(cell.graph.parameters()), times=2), cell.right, cell.name)


@habit("activation checkpointing", "checkpoint(graph, x, c, use_reentrant=False)",
       "``reversible`` needs less memory",
       refused={("continuous", "compiled"): "activation checkpointing"})  # fmt: skip
def rematerialized(cell: Cell) -> None:
    module = cell.module()
    cell.agree(lambda xs, cs: checkpoint(module, xs, cs, use_reentrant=False))


@habit("activation checkpointing, reentrant", "checkpoint(call, x, c, use_reentrant=True)",
       "takes tensors, not tuples of them: wrap the call", runners=("plain", "bound", "reversible"))  # fmt: skip
def rematerialized_reentrant(cell: Cell) -> None:
    module = cell.module()

    def call(xs: Any, cs: Any) -> Any:
        def flat(x: Tensor, c: Tensor) -> Any:
            (y,), log_det = module((x,), (c,))
            return y, log_det

        y, log_det = checkpoint(flat, *xs, *cs, use_reentrant=True)
        return (y,), log_det

    compare(backward(cell, call, tuple(cell.graph.parameters())), cell.right, cell.name)


def outside(cell: Cell, function: Callable[..., Any]) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager", fullgraph=cell.runner == "plain")


@habit("torch.compile of the flow", "torch.compile(flow)",
       "``graph.compile()`` compiles repeated blocks once, which takes less time; a reversible graph runs as it is",
       runners=("plain", "bound", "reversible"))  # fmt: skip
def compiled_outside(cell: Cell) -> None:
    cell.agree(outside(cell, cell.module()))


@habit("torch.compile of the loss", "torch.compile(lambda x, c: flow.loss(x, c))",
       "a reversible graph runs as it is", runners=("plain", "reversible"))  # fmt: skip
def compiled_loss(cell: Cell) -> None:
    module = cell.module()

    def loss(xs: Any, cs: Any) -> Tensor:
        ys, log_det = module(xs, cs)
        return weighed([*ys, log_det])

    xs, cs = cell.leaves()
    value = outside(cell, loss)(xs, cell.given(cs))
    parameters = tuple(cell.graph.parameters())
    grads = torch.autograd.grad(value, (*xs, *cs, *parameters), allow_unused=True)
    got = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, (*xs, *cs, *parameters), strict=True)]
    compare({"data gradients": got[:2], "parameter gradients": got[2:]}, cell.right, cell.name)


@habit("torch.compile of the training step", "torch.compile(step)", "a reversible graph runs as it is",
       runners=("plain", "reversible"))  # fmt: skip
def compiled_step(cell: Cell) -> None:
    module = cell.module()
    xs, cs = (tuple(t.detach() for t in ts) for ts in cell.leaves())

    def loss() -> Tensor:
        ys, log_det = module(xs, cell.given(cs))
        return weighed([*ys, log_det])

    def step() -> Tensor:
        value = loss()
        value.backward()
        return value.detach()

    torch._dynamo.reset()
    torch.compile(step, backend="eager")()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in cell.graph.parameters()]
    compare({"parameter gradients": grads}, cell.right, cell.name)


@habit("torch.export of the graph", "torch.export.export(graph, (x, c))",
       "``ig.export`` also makes the batch size variable, and names the layer that can't be exported",
       runners=("plain",), refused={"continuous": "under torch.export"})  # fmt: skip
def exported_outside(cell: Cell) -> None:
    leaves = cell.leaves()
    with torch.no_grad():
        program = torch.export.export(cell.module(), (leaves[0], repeated(leaves[1])))
    for module in (program.module(), program.run_decompositions().module()):
        cell.agree(module, gradients=False)


@habit("torch.onnx.export of the graph", "torch.onnx.export(graph.eval(), (x, c), dynamo=True)",
       "takes up to a minute; torch has no ONNX for matrix exponentials, solves and determinants, as in ``Conv1x1``: "
       "``ig.export_onnx`` makes constants of those that depend on parameters alone, and names the layer that can't be "
       "exported", runners=("plain",), needs=("onnx", "onnxscript"),
       without=frozenset(("linear", "continuous", "residual", "mixture", "image", "cosines")))  # fmt: skip
def onnx_outside(cell: Cell) -> None:
    leaves = cell.leaves()
    with torch.no_grad():
        program = torch.onnx.export(cell.module().eval(), (leaves[0], repeated(leaves[1])), dynamo=True, verbose=False)
    assert program is not None
    names = {node.op_type for node in program.model.graph}
    assert names


def dropping(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 5), nn.Dropout(0.5), nn.Linear(5, channels_out))


def normed(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 5), nn.BatchNorm1d(5), nn.Linear(5, channels_out))


def with_subnet(cell: Cell, subnet: Any) -> None:
    """Put a coupling with this subnet in front of the graph."""
    shape = cell.graph.in_shapes[0]
    x, c = ig.InputNode(*shape, name="x"), ig.ConditionNode(2, name="c")
    torch.manual_seed(0)
    args = {"transform": ig.Affine(clamp=1.0), "subnet": subnet}
    front = ig.Coupling((math.prod(shape),), ((2,),), **args).double().eval()
    h = ig.Node(ig.Node(x, ig.Flatten), randomize(front, seed=3, scale=0.5), conditions=c, name="new")
    h = ig.Node(ig.Node(h, ig.Reshape, {"shape": shape}), cell.graph, conditions=c)
    cell.graph = ig.Graph([x], [h], [c])


def _seeded(cell: Cell, module: Callable[..., Any], parameters: Sequence[Tensor]) -> Found:
    torch.manual_seed(11)
    return cell.run(module, parameters)


def _as_plain(cell: Cell, train: bool) -> None:
    """The runner draws and counts as the plain graph does, which is called under the same seed."""
    cell.graph.train(train)
    other = Cell(cell.name, "plain", cell.inverse)
    other.graph = copy.deepcopy(cell.graph)
    module = cell.module()
    got = _seeded(cell, module, tuple(cell.graph.parameters()))
    with ig.fused(False):
        call = cell_call(other)
        torch.manual_seed(11)
        given = cell.given
        right = found(
            lambda xs, cs: call(xs, given(cs) if cell.runner != "bound" else repeated(cs)),
            cell.leaves(), tuple(other.graph.parameters()), cell.compares_gradients,
        )  # fmt: skip
    compare(got, right, f"{cell.name}, {cell.runner}")
    for (name, one), two in zip(cell.graph.named_buffers(), other.graph.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10, msg=f"{name} differs")


def cell_call(cell: Cell) -> Callable[..., Any]:
    return cell.graph.inverse if cell.inverse else cell.graph


NO_COUPLING_FIRST = frozenset({"integers", "bounded"})
"""Graphs whose first layer needs data in its domain."""


@habit("dropout in a subnet, train()", "nn.Dropout in a subnet; graph.train()",
       "forward and inverse draw their own masks, so a round trip is exact after ``.eval()`` only; a reversible graph "
       "would need the same mask twice: train the plain graph",
       refused={"reversible": "dropout"}, runners=("plain", "bound", "reversible", "compiled"),
       without=NO_COUPLING_FIRST)  # fmt: skip
def dropout_trains(cell: Cell) -> None:
    with_subnet(cell, dropping)
    _as_plain(cell, True)


@habit(
    "dropout in a subnet, eval()", "nn.Dropout in a subnet; graph.eval()", runners=RUNNERS, without=NO_COUPLING_FIRST
)
def dropout_evaluates(cell: Cell) -> None:
    with_subnet(cell, dropping)
    _as_plain(cell, False)


@habit("batch norm in a subnet, train()", "nn.BatchNorm1d in a subnet; graph.train()",
       "sampling in ``train()`` moves the running statistics, as with any module: call ``.eval()`` first; "
       "``ContinuousFlow`` refuses it, as no sample would have a log-determinant of its own",
       without=NO_COUPLING_FIRST)  # fmt: skip
def batch_norm_trains(cell: Cell) -> None:
    with_subnet(cell, normed)
    _as_plain(cell, True)


@habit(
    "batch norm in a subnet, eval()",
    "nn.BatchNorm1d in a subnet; graph.eval()",
    runners=RUNNERS,
    without=NO_COUPLING_FIRST,
)
def batch_norm_evaluates(cell: Cell) -> None:
    with_subnet(cell, normed)
    _as_plain(cell, False)


@habit("train() and eval() of the whole graph", "graph.train(); graph.eval()",
       "stochastic layers draw from the global generator in ``train()``", )  # fmt: skip
def modes(cell: Cell) -> None:
    _as_plain(cell, True)
    cell.graph.eval()
    cell.agree()


@habit("inference_mode, then training", "with torch.inference_mode(): graph(x, c)\ngraph(x, c)[1].sum().backward()")
def inference_then_training(cell: Cell) -> None:
    module = cell.module()
    xs, cs = (tuple(t.detach() for t in ts) for ts in cell.leaves())
    with torch.inference_mode():
        ys, log_det = module(xs, cell.given(cs))
    compare({"values": [*ys, log_det]}, cell.right, cell.name)
    cell.agree(module)


@habit("no_grad, then training", "with torch.no_grad(): graph(x, c)\ngraph(x, c)[1].sum().backward()")
def no_grad_then_training(cell: Cell) -> None:
    module = cell.module()
    with torch.no_grad():
        cell.run(module, gradients=False)
    cell.agree(module)


@habit("second derivatives", "torch.autograd.grad(loss, x, create_graph=True)",
       "call the plain graph: a reversible run stores no activations, and torch does not differentiate a compiled "
       "backward pass", refused={"reversible": "second derivatives"},
       runners=("plain", "bound", "reversible"))  # fmt: skip
def twice(cell: Cell) -> None:
    def penalty(module: Callable[..., Any], given: Callable[..., Any]) -> list[Tensor]:
        xs, cs = cell.leaves()
        ys, log_det = module(xs, given(cs))
        (first,) = torch.autograd.grad(weighed([*ys, log_det]), xs, create_graph=True)
        grads = torch.autograd.grad(first.square().sum(), (*xs, *cs), allow_unused=True)
        return [first.detach(), *(torch.zeros(()) if g is None else g for g in grads)]

    got = penalty(cell.module(), cell.given)
    other = Cell(cell.name, "plain", cell.inverse)
    with ig.fused(False):
        right = penalty(cell_call(other), repeated)
    for one, two in zip(got, right, strict=True):
        scale = max(1.0, float(two.abs().max()))
        assert (one - two).abs().max() <= 1e-8 * scale
