"""Chains of all-in-one blocks, as anomaly detectors are made of them, beside FrEIA's where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig
from tests.benchmarks.field import COMPILED, is_chosen
from tests.benchmarks.timing import Job, interleave, rows


def convolutions(kernel: int) -> Callable[[int, int], nn.Module]:
    def make(channels_in: int, channels_out: int) -> nn.Module:
        first = nn.Conv2d(channels_in, channels_in, kernel, padding="same")
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(channels_in, channels_out, kernel, padding="same"))

    return make


def dense(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 2 * channels_in), nn.ReLU(), nn.Linear(2 * channels_in, channels_out))


def chain(shape: tuple[int, ...], condition: int, blocks: int, permutation: str) -> ig.Graph:
    """Return a chain of damped blocks: over maps with kernels 3 and 1 in turns, over vectors under a condition."""
    x, c = ig.InputNode(*shape, name="x"), ig.ConditionNode(condition or 1, name="c")
    args = {"transform": ig.Affine(clamp=1.9, activation="tanh"), "permutation": permutation, "damping": 0.1}
    h: Any = x
    for k in range(blocks):
        subnet = dense if len(shape) == 1 else convolutions(1 if k % 2 else 3)
        conditions = c if condition else ()
        h = ig.Node(h, ig.AllInOne, {**args, "subnet": subnet}, conditions=conditions, name=f"block_{k}")
    return ig.Graph(x, h, c if condition else ())


def peer(shape: tuple[int, ...], condition: int, blocks: int, permutation: str) -> nn.Module | None:
    """Return the same chain of FrEIA's, or None if it is not installed."""
    try:
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock
    except ImportError:
        return None
    inn: nn.Module = SequenceINN(*shape)
    given = {"cond": 0, "cond_shape": (condition,)} if condition else {}
    for k in range(blocks):
        subnet = dense if len(shape) == 1 else convolutions(1 if k % 2 else 3)
        args = {"affine_clamping": 1.9, "permute_soft": permutation == "soft", **given}
        inn.append(AllInOneBlock, subnet_constructor=subnet, **args)  # type: ignore[operator]
    return inn


WORK = {
    "maps, hard": ((256, 64, 64), 0, 8, "hard"),
    "vectors, hard": ((512,), 128, 2048, "hard"),
    "vectors, soft": ((512,), 128, 2048, "soft"),
}


def run(seconds: float, blocks: int = 8, compiled: bool = False, chosen: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Time a pass without gradients, and a training step, of each chain; here also compiled, if that is wanted.

    With ``chosen``, only the rows whose name contains one of these texts.
    """
    found: list[dict[str, Any]] = []
    for name, (shape, condition, batch, permutation) in WORK.items():
        wanted = {
            kind: make
            for kind, make in (("density", _density), ("train", _train))
            if is_chosen(f"{name}: {kind}", chosen)
        }
        if not wanted:
            continue
        x, c = torch.randn(batch, *shape), torch.randn(batch, condition) if condition else None
        ours, other = chain(shape, condition, blocks, permutation), peer(shape, condition, blocks, permutation)
        calls: dict[str, tuple[nn.Module, Callable[[], Any]]] = {"invgraph": (ours, _call(ours, x, c))}
        if other is not None:
            calls["FrEIA"] = (other, _call(other, x, None if c is None else [c]))
        if compiled:
            fast = chain(shape, condition, blocks, permutation).compile(dynamic=False)
            calls[COMPILED] = (fast, _call(fast, x, c))
        for kind, make in wanted.items():
            jobs = {contestant: make(*pair) for contestant, pair in calls.items()}
            timings = interleave(jobs, seconds, least=3)
            reference = "FrEIA" if other is not None else "invgraph"
            found += rows(timings, reference, work=f"{name}: {kind}", batch=batch)
    return found


def _call(model: nn.Module, x: Tensor, c: Any) -> Callable[[], Any]:
    return (lambda: model(x)) if c is None else (lambda: model(x, c))


def _density(model: nn.Module, call: Callable[[], Any]) -> Job:
    def job() -> None:
        with torch.no_grad():
            call()

    return job


def _train(model: nn.Module, call: Callable[[], Any]) -> Job:
    parameters = list(model.parameters())

    def job() -> None:
        for parameter in parameters:
            parameter.grad = None
        z, log_det = call()
        (z.square().sum() / 2 - log_det.sum()).backward()

    return job
