"""Settings of torch for a while, and other processes."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from defaults import default_dtype
from found import Found, compare, found, weighed

from .cell import RUNNERS, Cell, habit, ignoring, repeated
from .graphs import filled, make


@habit("another default dtype in calls", "torch.set_default_dtype(torch.float16)", runners=RUNNERS)
def other_dtype(cell: Cell) -> None:
    leaves = cell.leaves()
    for dtype in (torch.float64, torch.float16):
        with default_dtype(dtype):
            cell.agree()
    assert leaves[0][0].dtype == torch.float64


@habit("another default dtype while building", "torch.set_default_dtype(torch.float64); build()", runners=RUNNERS)
def other_dtype_while_building(cell: Cell) -> None:
    with default_dtype(torch.float64):
        graph = make(cell.name).eval()
    assert all(t.dtype == torch.float64 for t in graph.state_dict().values() if t.is_floating_point())
    graph.load_state_dict(cell.graph.state_dict())
    cell.graph = graph
    cell.agree()


@habit("another default device in calls", 'with torch.device("meta"): graph(x, c)',
       "every tensor is made on the device of the data", runners=("plain", "bound", "reversible"))  # fmt: skip
def other_device(cell: Cell) -> None:
    module, (xs, cs) = cell.module(), cell.leaves()
    with torch.device("meta"):
        ys, log_det = module(xs, cell.given(cs) if cell.runner == "bound" else repeated(cs))
    outputs = [*ys, log_det]
    assert all(y.device.type == "cpu" for y in outputs)
    compare({"values": [y.detach() for y in outputs]}, cell.right, cell.name)
    loss, parameters = weighed(outputs), tuple(cell.graph.parameters())
    with torch.device("meta"):
        grads = torch.autograd.grad(loss, (*xs, *cs, *parameters), allow_unused=True)
    got = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, (*xs, *cs, *parameters), strict=True)]
    compare({"data gradients": got[:2], "parameter gradients": got[2:]}, cell.right, cell.name)


@habit("another default device while building", 'with torch.device("cpu"): build()', runners=RUNNERS)
def other_device_while_building(cell: Cell) -> None:
    with torch.device("cpu"):
        cell.graph = filled(cell.name).eval()
        cell.agree()


@habit("deterministic mode", "torch.use_deterministic_algorithms(True)")
def deterministic(cell: Cell) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        cell.agree()
    finally:
        torch.use_deterministic_algorithms(False)


@habit(
    "anomaly mode",
    "with torch.autograd.detect_anomaly(): ...",
    "slow: for debugging; compiled graphs run their plain code, which tracebacks can name",
)
def anomaly(cell: Cell) -> None:
    with ignoring("Anomaly Detection has been enabled"), torch.autograd.detect_anomaly():
        cell.agree()


@habit("autocast", "with torch.autocast(device, torch.bfloat16): flow.loss(x, c)",
       "subnets run in half precision, transforms and log-dets in the data's dtype", runners=RUNNERS[:4])  # fmt: skip
def autocast(cell: Cell) -> None:
    leaves = cell.leaves(torch.float32)
    module = cell.module(cell.graph.float())
    with torch.autocast("cpu", torch.bfloat16):
        got = found(lambda xs, cs: module(xs, cell.given(cs)), leaves, tuple(cell.graph.parameters()), True)
    assert all(value.dtype == torch.float32 for value in got["values"])
    compare({"values": [v.double() for v in got["values"]]}, cell.right, cell.name, 0.2)
    for key in ("data gradients", "parameter gradients"):
        one, other = (torch.cat([t.flatten().double() for t in f[key]]) for f in (got, cell.right))
        assert (one - other).norm() <= 0.1 * other.norm()


def in_the_child(name: str, runner: str, inverse: bool, pickled: bytes) -> Found:
    """Values that the other process finds with the graph that was sent to it."""
    torch.set_num_threads(1)
    cell = Cell(name, runner, inverse)
    cell.graph = pickle.loads(pickled)
    return cell.run(cell.module())


def _send(end: Any, *arguments: Any) -> None:
    try:
        end.send_bytes(pickle.dumps(in_the_child(*arguments)))
    except BaseException as error:
        end.send_bytes(pickle.dumps(repr(error)))


@habit("fork", 'multiprocessing.get_context("fork").Process(...)', runners=("plain", "bound", "reversible"))
def forked(cell: Cell) -> None:
    cell.run(cell.module())  # the parent has used the graph
    context = multiprocessing.get_context("fork")
    arguments = cell.name, cell.runner, cell.inverse, pickle.dumps(cell.graph)
    for _ in range(3):  # a child waits forever for a lock that another thread of its parent held: no fault of a graph
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(there, *arguments))
        process.start()
        answered = here.poll(30)
        answer = pickle.loads(here.recv_bytes()) if answered else "no answer"
        process.kill()
        process.join()
        if answered:
            break
    assert not isinstance(answer, str), answer
    compare(answer, cell.right, cell.name)


@functools.cache
def spawned_process() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_paths, initargs=(list(sys.path),))
    atexit.register(pool.shutdown)
    return pool


def _paths(paths: list[str]) -> None:
    sys.path[:] = paths


@habit("spawn", "torch.multiprocessing.spawn(train, (graph,))", runners=("plain", "bound", "reversible"))
def spawned(cell: Cell) -> None:
    answer = spawned_process().submit(in_the_child, cell.name, cell.runner, cell.inverse, pickle.dumps(cell.graph))
    compare(answer.result(120), cell.right, cell.name)


@habit("torch.jit.script", "torch.jit.script(graph)", "torch has deprecated it: use ``ig.export``", runners=RUNNERS[:4],
       refused=dict.fromkeys(RUNNERS, "TorchScript"))  # fmt: skip
def scripted(cell: Cell) -> None:
    with ignoring(".*torch.jit.*"):
        torch.jit.script(cell.module())
