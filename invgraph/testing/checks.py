"""The checks of the contract, one function each: silent where it is kept, else a ContractError with words."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invgraph.shapes import batched
from invgraph.testing.subject import Direction, Subject, gap


def shapes(subject: Subject) -> None:
    """Declared shapes are real, and log-dets are (B,) in the data's dtype."""
    module = subject.module
    for direction, declared in zip(subject.directions, (module.out_shapes, module.in_shapes), strict=True):
        values, log_det = direction.run()
        batch, first = len(direction.values[0]), direction.values[0]
        got = [tuple(value.shape) for value in values]
        if got != [(batch, *shape) for shape in declared]:
            wanted = ", ".join(map(batched, declared))
            raise subject.fail(
                f"{direction.told} returned {got}", f"declared {wanted}: out_shapes must be the real ones"
            )
        forms = {(value.dtype, value.device) for value in (*values, log_det)}
        if forms != {(first.dtype, first.device)} or log_det.shape != (batch,):
            given = f"{direction.told}: results of {sorted(map(str, forms))}, log_det of shape {tuple(log_det.shape)}"
            raise subject.fail(given, f"expected {first.dtype} on {first.device}, and one log_det per sample")


def finite(subject: Subject) -> None:
    """Finite data give finite results."""
    for direction in subject.directions:
        values, log_det = direction.run()
        if not all(bool(value.isfinite().all()) for value in (*values, log_det)):
            advice = "NaN or infinite: is the data in the layer's domain? Give your own with inputs= or outputs="
            raise subject.fail(f"results of a {direction.told} call", advice)


def callers_tensors(subject: Subject) -> None:
    """No input is changed, by value or version counter."""
    for direction in subject.directions:
        given = (*direction.values, *direction.conditions)
        before = [(tensor.clone(), tensor._version) for tensor in given]
        direction.run()
        for index, (tensor, (value, version)) in enumerate(zip(given, before, strict=True)):
            if tensor._version != version or not torch.equal(tensor, value):
                kinds = ["input"] * len(direction.values) + ["condition"] * len(direction.conditions)
                place = f"{kinds[index]} {index if kinds[index] == 'input' else index - len(direction.values)}"
                advice = f"{direction.told} changed {place} in place: use operations that make a new tensor"
                raise subject.fail(f"{place} of shape {tuple(tensor.shape)}", advice)


def random_state(subject: Subject) -> None:
    """The global random states of torch, numpy and random stay as they were."""
    for direction in subject.directions:
        before = _states(direction.values[0])
        direction.run()
        for (name, old), new in zip(before.items(), _states(direction.values[0]).values(), strict=True):
            if old != new:
                advice = f"it drew from the global generator of {name}: use a torch.Generator of its own"
                raise subject.fail(f"a {direction.told} call", advice)


def _states(value: Tensor) -> dict[str, bytes]:
    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),
        "random": pickle.dumps(random.getstate()),
    }
    if value.is_cuda:
        states["torch.cuda"] = torch.cuda.get_rng_state(value.device).numpy().tobytes()
    return states


def repeatable(subject: Subject) -> None:
    """Twice the same call gives the same result, bit for bit."""
    for direction in subject.directions:
        (first, log_det), (second, again) = direction.run(), direction.run()
        if not all(torch.equal(a, b) for a, b in zip((*first, log_det), (*second, again), strict=True)):
            raise subject.fail(
                f"two equal {direction.told} calls", "the results differ: a layer keeps no state of a call"
            )


def round_trips(subject: Subject) -> None:
    """Each direction undoes the other."""
    for direction, back in zip(subject.directions, reversed(subject.directions), strict=True):
        error = round_trip(direction)
        if not error <= subject.limits.round_trip:
            given = f"{direction.told} then {back.told}: error {error:.1e}"
            advice = f"more than {subject.limits.round_trip:.0e}: {back.told} must undo {direction.told} exactly"
            raise subject.fail(given, advice)


def round_trip(direction: Direction) -> float:
    """How far the other direction misses the values that this one started from."""
    with torch.no_grad():
        values, _ = direction.run()
        there, _ = direction.back(values, direction.conditions)
    return gap(there, direction.values)


def antisymmetry(subject: Subject) -> None:
    """The log-dets of the two directions cancel."""
    for direction in subject.directions:
        with torch.no_grad():
            values, log_det = direction.run()
            _, back = direction.back(values, direction.conditions)
        error = gap((log_det,), (-back,))
        if not error <= subject.limits.round_trip:
            given = f"log-dets {log_det[0].item():.6g} {direction.told} and {back[0].item():.6g} back"
            raise subject.fail(
                given, f"they must cancel within {subject.limits.round_trip:.0e}: each is of its direction"
            )


def independent_rows(subject: Subject) -> None:
    """Each row of a batch gives what it gives alone; an empty batch gives empty results."""
    for direction in subject.directions:
        with torch.no_grad():
            values, log_det = direction.run()
            for row in range(len(log_det)):
                alone, own = _rows(direction, slice(row, row + 1))
                error = gap((*alone, own), (*(v[row : row + 1] for v in values), log_det[row : row + 1]))
                if not error <= subject.limits.round_trip:
                    given = f"{direction.told}: row {row} alone and in a batch of {len(log_det)}"
                    raise subject.fail(given, f"they differ by {error:.1e}: rows must not see each other")
            empty, none = _rows(direction, slice(0, 0))
        if len(none) or any(len(value) for value in empty):
            raise subject.fail(f"{direction.told}: an empty batch", "expected empty results")


def _rows(direction: Direction, rows: slice) -> tuple[tuple[Tensor, ...], Tensor]:
    return direction.call(tuple(v[rows] for v in direction.values), tuple(c[rows] for c in direction.conditions))


def gradients(subject: Subject) -> None:
    """Every trainable parameter gets a finite gradient, in both directions."""
    named = {name: p for name, p in subject.module.named_parameters() if p.requires_grad}
    for direction in subject.directions if named else ():
        with torch.enable_grad():
            values, log_det = direction.run()
            total = torch.stack([value.square().sum() for value in values]).sum() + log_det.sum()
            found = (
                torch.autograd.grad(total, list(named.values()), allow_unused=True)
                if total.requires_grad
                else [None] * len(named)
            )
        for name, gradient in zip(named, found, strict=True):
            if gradient is None:
                advice = f"no gradient reaches it {direction.told}: is it used, or detached on the way?"
                raise subject.fail(f"parameter '{name}'", advice)
            if not bool(gradient.isfinite().all()):
                raise subject.fail(f"parameter '{name}'", f"its gradient is not finite {direction.told}")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "declared shapes": shapes,
    "finite results": finite,
    "the caller's tensors": callers_tensors,
    "the global random states": random_state,
    "the same twice": repeatable,
    "round trips": round_trips,
    "log-dets that cancel": antisymmetry,
    "independent rows": independent_rows,
    "finite gradients": gradients,
}
