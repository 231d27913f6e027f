"""Copies of a graph, averages, other weights for one call, and parts that are moved, cast or filled later."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from found import compare, found, weighed
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.optim.swa_utils import AveragedModel

import invgraph as ig

from .cell import RUNNERS, Cell, habit, repeated
from .graphs import filled, make


def used(cell: Cell) -> nn.Module:
    """The runner, after a call and a backward pass."""
    module = cell.module()
    cell.run(module)
    return module


@habit("deepcopy", "copy.deepcopy(graph)", "before and after calls; a copy of a compiled graph is not compiled")
def deep_copied(cell: Cell) -> None:
    for copied in (copy.deepcopy(cell.module()), copy.deepcopy(used(cell))):
        cell.agree(copied, tuple(copied.parameters()))


@habit("pickle", "pickle.loads(pickle.dumps(graph))")
def pickled(cell: Cell) -> None:
    copied = pickle.loads(pickle.dumps(used(cell)))
    cell.agree(copied, tuple(copied.parameters()))


@habit("torch.save of the module", "torch.save(graph, path); torch.load(path, weights_only=False)")
def saved(cell: Cell) -> None:
    file = io.BytesIO()
    torch.save(used(cell), file)
    file.seek(0)
    copied = torch.load(file, weights_only=False)
    cell.agree(copied, tuple(copied.parameters()))


@habit("state_dict", "build().load_state_dict(torch.load(path))", runners=RUNNERS)
def state_loaded(cell: Cell) -> None:
    file = io.BytesIO()
    torch.save(cell.graph.state_dict(), file)
    file.seek(0)
    cell.graph = make(cell.name).double().eval()
    cell.graph.load_state_dict(torch.load(file))
    cell.agree()


@habit("ig.save and ig.load", "ig.save(path, graph); ig.load(path, build())", runners=RUNNERS)
def checkpointed(cell: Cell) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph")
        ig.save(path, cell.graph)
        cell.graph = make(cell.name).double().eval()
        ig.load(path, cell.graph)
    cell.agree()


@habit("averaged weights", "AveragedModel(graph, get_ema_avg_fn())", runners=RUNNERS)
def averaged(cell: Cell) -> None:
    _average(cell, use_buffers=False)


@habit("averaged weights and buffers", "AveragedModel(graph, use_buffers=True)", runners=RUNNERS)
def averaged_with_buffers(cell: Cell) -> None:
    _average(cell, use_buffers=True)


def _average(cell: Cell, use_buffers: bool) -> None:
    """Average weights that lie round those of the graph; the mean is the graph's."""
    start = make(cell.name).double().eval() if cell.name != "image" else copy.deepcopy(cell.graph)
    average = AveragedModel(start, use_buffers=use_buffers)
    for sign in (-1, 1):
        moved = copy.deepcopy(cell.graph)
        with torch.no_grad():
            for index, parameter in enumerate(moved.parameters()):
                parameter.add_(sign * 0.1 * (index + 1))
        average.update_parameters(moved)
    cell.graph = average.module
    cell.agree(tolerance=1e-8)


@habit("functional_call", "functional_call(graph, new_parameters, (x, c))",
       "parameter names begin with the runner's prefix, such as ``model.``")  # fmt: skip
def called_with_others(cell: Cell) -> None:
    module = cell.module()
    others = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    with torch.no_grad():
        for parameter in cell.graph.parameters():
            parameter.mul_(0.5)
    cell.agree(lambda xs, cs: functional_call(module, others, (xs, cs)), tuple(others.values()))


@habit("stack_module_state and vmap", "vmap(call, (0, 0, None))(*stack_module_state(graphs), x)",
       "``graph.compile()`` and ``reversible`` give way to the plain graph inside ``torch.func``",
       without=frozenset({"integers"}))  # fmt: skip
def ensemble(cell: Cell) -> None:
    graphs = [copy.deepcopy(cell.graph) for _ in range(2)]
    with torch.no_grad():
        for parameter in graphs[1].parameters():
            parameter.mul_(0.5)
    modules = [cell.module(graph) for graph in graphs]
    parameters, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    xs, cs = cell.leaves()

    def call(p: Any, b: Any) -> Any:
        return functional_call(modules[0], (p, b), (xs, cell.given(cs)))

    ys, log_det = vmap(call)(parameters, buffers)
    loss = weighed([*(y[0] for y in ys), log_det[0]])
    grads = torch.autograd.grad(loss, (*xs, *cs, *parameters.values()), allow_unused=True)
    filled_in = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, (*xs, *cs, *parameters.values()),
                                                                         strict=True)]  # fmt: skip
    got = {
        "values": [y[0].detach() for y in (*ys, log_det)],
        "data gradients": filled_in[:2],
        "parameter gradients": [g[0] for g in filled_in[2:]],
    }
    compare(got, cell.right, f"{cell.name}, {cell.runner}")
    with torch.no_grad():
        one, more = modules[1](xs, cell.given(cs))
    torch.testing.assert_close((tuple(y[1] for y in ys), log_det[1]), (one, more), rtol=1e-9, atol=1e-9)


@habit("per-sample gradients", "vmap(grad(loss), (None, 0, 0))(parameters, x, c)",
       "``graph.compile()`` and ``reversible`` give way to the plain graph inside ``torch.func``",
       runners=("plain", "reversible", "compiled"),
       without=frozenset({"integers"}))  # fmt: skip
def per_sample(cell: Cell) -> None:
    module = cell.module()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    (x,), cs = cell.leaves()
    (c,) = repeated(cs)

    def loss(p: Any, row: Tensor, given: Tensor) -> Tensor:
        (y,), log_det = functional_call(module, p, ((row[None],), (given[None],)))
        return y.square().sum() - log_det.sum()

    with torch.no_grad():
        each = vmap(grad(loss), (None, 0, 0))(parameters, x, c)
    call = cell.graph.inverse if cell.inverse else cell.graph
    (y,), log_det = call((x,), (c,))
    with torch.enable_grad(), ig.fused(False):
        (y,), log_det = call((x,), (c,))
        whole = torch.autograd.grad(y.square().sum() - log_det.sum(), list(cell.graph.parameters()), allow_unused=True)
    for found_, right in zip(each.values(), whole, strict=True):
        right = torch.zeros_like(found_[0]) if right is None else right
        torch.testing.assert_close(found_.sum(0), right, rtol=1e-8, atol=1e-8)


@habit("cast whole", "graph.to(torch.float32)", "log-dets of many elements are more precise in double precision",
       runners=RUNNERS)  # fmt: skip
def cast(cell: Cell) -> None:
    module = cell.module(cell.graph.to(torch.float32))
    leaves = cell.leaves(torch.float32)
    with torch.no_grad():
        got = found(lambda xs, cs: module(xs, cell.given(cs)), leaves, (), False)
    assert all(value.dtype == torch.float32 for value in got["values"])
    compare({"values": [v.double() for v in got["values"]]}, cell.right, cell.name, 1e-3)


@habit("a part cast", 'graph["coupling_0"].float()', "a graph has one dtype; subnets in half precision: autocast",
       refused=dict.fromkeys(RUNNERS, r"float(32|64)"))  # fmt: skip
def part_cast(cell: Cell) -> None:
    _last_layer(cell).float()
    cell.agree()


@habit("a part moved", 'graph["coupling_0"].to("cuda")', "a graph has one device",
       refused=dict.fromkeys(RUNNERS, r"on (cpu|meta)|meta device"))  # fmt: skip
def part_moved(cell: Cell) -> None:
    _last_layer(cell).to("meta")
    cell.agree()


def _last_layer(cell: Cell) -> nn.Module:
    layers = [layer for layer in cell.graph.layers.values() if isinstance(layer, ig.Invertible)]
    return next(layer for layer in layers[::-1] if any(p.is_floating_point() for p in layer.parameters()))


@habit("built on meta, then to_empty", 'with torch.device("meta"): graph = build()\n'
       'graph.to_empty(device="cpu"); graph.load_state_dict(state)', runners=RUNNERS)  # fmt: skip
def from_meta(cell: Cell) -> None:
    state = cell.graph.state_dict()
    with torch.device("meta"):
        graph = make(cell.name).double().eval()
    graph.to_empty(device="cpu")
    graph.load_state_dict(state)
    cell.graph = graph
    cell.agree()


@habit("built on meta, then assign=True", 'with torch.device("meta"): graph = build()\n'
       "graph.load_state_dict(state, assign=True)", runners=RUNNERS)  # fmt: skip
def assigned(cell: Cell) -> None:
    state = copy.deepcopy(cell.graph.state_dict())
    with torch.device("meta"):
        graph = make(cell.name).double().eval()
    graph.load_state_dict(state, assign=True)
    cell.graph = graph.requires_grad_()
    cell.agree()


@habit("moved to meta and filled", 'graph.to("meta"); graph.load_state_dict(state, assign=True)', runners=RUNNERS)
def moved_to_meta(cell: Cell) -> None:
    state = copy.deepcopy(cell.graph.state_dict())
    cell.graph.to("meta")
    cell.graph.load_state_dict(state, assign=True)
    cell.graph.requires_grad_()
    cell.agree()


@habit("numpy scalars everywhere", 'ig.Node(x, ig.Permute, {"seed": np.int64(1)})', runners=RUNNERS)
def numpy_scalars(cell: Cell) -> None:
    import numpy as np

    def number(value: Any) -> Any:
        return np.int64(value) if isinstance(value, int) else np.float64(value)

    cell.graph = filled(cell.name, number).eval()
    cell.agree()
    flow = ig.Flow(cell.graph)
    if not cell.inverse and cell.runner == "plain":
        generators = [torch.Generator().manual_seed(5) for _ in range(2)]
        cs = cell.leaves()[1]
        one, other = (
            flow.sample(n, cs, temperature=t, generator=g)
            for n, t, g in zip((2, np.int64(2)), (0.5, np.float32(0.5)), generators, strict=True)
        )
        torch.testing.assert_close(one, other)


class Lightning(nn.Module):
    """A user's module, which holds what it is given under any name."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.held = name
        setattr(self, name, module)

    def forward(self, *args: Any) -> Any:
        return getattr(self, self.held)(*args)


NAMES = ("model", "net", "flow", "graph", "module", "layers", "inverse", "base", "encoder")


@habit("a module of your own that contains the graph", "class Model(nn.Module): self.model = graph",
       "under any name, but torch's own exporter can't export a module with a child called ``graph``")  # fmt: skip
def held(cell: Cell) -> None:
    for name in NAMES:
        holder = Lightning(name, cell.module())
        cell.agree(holder)
        state = holder.state_dict()
        assert all(key.startswith(f"{name}.") for key in state)
        holder.load_state_dict(state)
        if name in ("model", "graph"):
            other = copy.deepcopy(holder).double().train().eval()
            cell.agree(other, tuple(other.parameters()))
