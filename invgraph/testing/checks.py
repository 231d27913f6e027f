"""Checks of the contract: each function returns None, or raises a ContractError."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from invgraph.shapes import batched
from invgraph.testing.subject import Direction, Subject, gap
from invgraph.torch_internals import version


def shapes(subject: Subject) -> None:
    """Outputs have the declared shapes; log-dets have shape (B,) and the dtype of the data."""
    module = subject.module
    for direction, declared in zip(subject.directions, (module.out_shapes, module.in_shapes), strict=True):
        values, log_det = direction.run()
        batch, first = len(direction.values[0]), direction.values[0]
        got = [tuple(value.shape) for value in values]
        if got != [(batch, *shape) for shape in declared]:
            wanted = ", ".join(map(batched, declared))
            raise subject.fail(
                f"{direction.label} returned {got}", f"declared {wanted}: declare the shapes that are returned"
            )
        forms = {(value.dtype, value.device) for value in (*values, log_det)}
        if forms != {(first.dtype, first.device)} or log_det.shape != (batch,):
            given = f"{direction.label}: results of {sorted(map(str, forms))}, log_det of shape {tuple(log_det.shape)}"
            raise subject.fail(given, f"expected {first.dtype} on {first.device}, and one log_det per sample")


def finite(subject: Subject) -> None:
    """Finite data gives finite results."""
    for direction in subject.directions:
        values, log_det = direction.run()
        if not all(bool(value.isfinite().all()) for value in (*values, log_det)):
            advice = "NaN or infinite: is the data in the layer's domain? If not, pass suitable inputs= or outputs="
            raise subject.fail(f"results of a {direction.label} call", advice)


def unchanged_inputs(subject: Subject) -> None:
    """No input changes, neither its values nor its version counter."""
    for direction in subject.directions:
        given = (*direction.values, *direction.conditions)
        before = [(tensor.clone(), version(tensor)) for tensor in given]
        direction.run()
        for index, (tensor, (value, count)) in enumerate(zip(given, before, strict=True)):
            if version(tensor) != count or not torch.equal(tensor, value):
                kinds = ["input"] * len(direction.values) + ["condition"] * len(direction.conditions)
                place = f"{kinds[index]} {index if kinds[index] == 'input' else index - len(direction.values)}"
                advice = f"{direction.label} changed {place} in place: use out-of-place operations"
                raise subject.fail(f"{place} of shape {tuple(tensor.shape)}", advice)


def unchanged_random_states(subject: Subject) -> None:
    """The global random states of torch, numpy and random do not change."""
    for direction in subject.directions:
        before = _states(direction.values[0])
        direction.run()
        for (name, old), new in zip(before.items(), _states(direction.values[0]).values(), strict=True):
            if old != new:
                advice = f"it drew from the global generator of {name}: use a private torch.Generator"
                raise subject.fail(f"a {direction.label} call", advice)


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
    """The same call twice gives the same result, bit for bit."""
    for direction in subject.directions:
        (first, log_det), (second, again) = direction.run(), direction.run()
        if not all(torch.equal(a, b) for a, b in zip((*first, log_det), (*second, again), strict=True)):
            raise subject.fail(
                f"two equal {direction.label} calls", "the results differ: a layer must not keep state between calls"
            )


def round_trips(subject: Subject) -> None:
    """Each direction inverts the other."""
    for direction, back in zip(subject.directions, reversed(subject.directions), strict=True):
        error = round_trip(direction)
        if not error <= subject.limits.round_trip:
            given = f"{direction.label} then {back.label}: error {error:.1e}"
            advice = f"more than {subject.limits.round_trip:.0e}: {back.label} must undo {direction.label} exactly"
            raise subject.fail(given, advice)


def round_trip(direction: Direction) -> float:
    """Return the largest absolute error after this direction and back."""
    with torch.no_grad():
        values, _ = direction.run()
        there, _ = direction.back(values, direction.conditions)
    return gap(there, direction.values)


def antisymmetry(subject: Subject) -> None:
    """The log-dets of both directions cancel."""
    for direction in subject.directions:
        with torch.no_grad():
            values, log_det = direction.run()
            _, back = direction.back(values, direction.conditions)
        error = gap((log_det,), (-back,))
        if not error <= subject.limits.round_trip:
            given = f"log-dets {log_det[0].item():.6g} ({direction.label}) and {back[0].item():.6g} (back)"
            advice = f"they must cancel within {subject.limits.round_trip:.0e}: return the log-det of the direction"
            raise subject.fail(given, advice)


def independent_samples(subject: Subject) -> None:
    """Each sample of a batch gives the same as alone; an empty batch gives empty results."""
    for direction in subject.directions:
        with torch.no_grad():
            values, log_det = direction.run()
            for row in range(len(log_det)):
                alone, own = _rows(direction, slice(row, row + 1))
                error = gap((*alone, own), (*(v[row : row + 1] for v in values), log_det[row : row + 1]))
                if not error <= subject.limits.round_trip:
                    given = f"{direction.label}: sample {row} alone and in a batch of {len(log_det)}"
                    raise subject.fail(given, f"they differ by {error:.1e}: samples must be independent")
            try:
                empty, none = _rows(direction, slice(0, 0))
            except Exception as error:  # a layer may raise anything
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                advice = f"it raises {type(error).__name__}: {reason}: a batch may be empty"
                raise subject.fail(f"{direction.label}: a batch of 0 samples", advice) from error
        if len(none) or any(len(value) for value in empty):
            raise subject.fail(f"{direction.label}: an empty batch", "expected empty results")


def _rows(direction: Direction, rows: slice) -> tuple[tuple[Tensor, ...], Tensor]:
    return direction.call(tuple(v[rows] for v in direction.values), tuple(c[rows] for c in direction.conditions))


def gradients(subject: Subject) -> None:
    """Every trainable parameter gets a finite gradient in both directions."""
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
                advice = f"no gradient in the {direction.label} direction: is it used, or detached?"
                raise subject.fail(f"parameter '{name}'", advice)
            if not bool(gradient.isfinite().all()):
                advice = f"its gradient is not finite in the {direction.label} direction"
                raise subject.fail(f"parameter '{name}'", advice)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "declared shapes": shapes,
    "finite results": finite,
    "unchanged inputs": unchanged_inputs,
    "unchanged random states": unchanged_random_states,
    "repeatable calls": repeatable,
    "round trips": round_trips,
    "canceling log-dets": antisymmetry,
    "independent samples": independent_samples,
    "finite gradients": gradients,
}
