"""Checks of arguments that work for any object: no value is compared or iterated over before its type is known.

Each check returns the argument as a plain Python value, so that numpy's scalars can be passed wherever Python's can and
never end up in a module. Callers must use the returned value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard, TypeVar

import numpy as np
import torch
from torch import Tensor

from invgraph.errors import ArgumentError, GraphError, InputTypeError

Choice = TypeVar("Choice", str, int)

_EXACT = 2**53  # every int up to this one is a float


def is_int(value: object) -> TypeGuard[int]:
    """True for an int of Python or numpy, and False for a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_int(where: str, name: str, value: object) -> int:
    """Return an int of any size and sign."""
    if not is_int(value):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be an int")
    return int(value)


def require_count(where: str, name: str, value: object, least: int = 1, most: int = 2**63 - 1) -> int:
    """Return an int from ``least`` to ``most``. Default: a positive one that fits into an int64."""
    count = require_int(where, name, value)
    if count < least:
        raise GraphError(where, _describe(name, count), f"{name} must be at least {least}")
    if count > most:
        raise GraphError(where, _describe(name, count), f"{name} must be at most {most}")
    return count


def require_seed(where: str, seed: object, bits: int = 64) -> int:
    """Return a seed of a ``torch.Generator``; with ``bits=63``, one that fits into an int64 tensor as well."""
    number = require_int(where, "seed", seed)
    if not -(2**63) <= number < 2**bits:
        advice = f"seed must be at least -2**63 and below 2**{bits}"
        raise GraphError(where, _describe("seed", number), advice)
    return number


def as_number(where: str, name: str, value: object) -> float:
    """Return an int or a float; an int that a float can't represent exactly becomes a float, possibly infinite."""
    if is_int(value):
        exact = int(value)
        if abs(exact) <= _EXACT:
            return exact
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf
    if not isinstance(value, (float, np.floating)):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be a number")
    return float(value)


def require_amount(where: str, name: str, value: object) -> float:
    """Return a finite number that is zero or positive."""
    amount = as_number(where, name, value)
    if not 0 <= amount < math.inf:
        raise GraphError(where, f"{name}={amount}", f"{name} must be finite and not negative")
    return amount


def require_positive(where: str, name: str, value: object) -> float:
    """Return a finite number above zero."""
    number = as_number(where, name, value)
    if not 0 < number < math.inf:
        raise GraphError(where, f"{name}={number}", f"{name} must be positive and finite")
    return number


def require_flag(where: str, name: str, value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be True or False")
    return bool(value)


def require_choice(where: str, name: str, value: object, choices: Sequence[Choice]) -> Choice:
    """Return one of these strings or ints, which differ from each other."""
    if not is_one_of(value, choices):
        names = [repr(choice) for choice in choices]
        advice = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
        raise GraphError(where, f"{name}={value!r}", f"{name} must be {advice}")
    return choices[choices.index(value)]


def is_one_of(value: object, choices: Sequence[object]) -> bool:
    """True if the value is one of these strings or ints."""
    return (isinstance(value, str) or is_int(value)) and value in choices


def as_numbers(where: str, name: str, values: object, kind: str = "numbers") -> Tensor:
    """Return numbers of any shape as a float64 tensor on the CPU, without gradient."""
    if isinstance(values, Tensor) and values.is_complex():
        raise ArgumentError(where, f"{name}: {values.dtype}", f"{name} must be real")
    try:
        return torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        given = f"{name}: {type(values).__name__}"
        raise ArgumentError(where, given, f"{name} must be a tensor, or {kind}") from error


def as_matrix(where: str, matrix: object) -> Tensor:
    """Return a float64 tensor on the CPU, without gradient."""
    return as_numbers(where, "matrix", matrix, "rows of numbers")


def as_filled(where: str, name: str, values: object, shape: tuple[int, ...]) -> Tensor:
    """Return finite numbers as a float64 tensor of a shape, to which they are broadcast.

    They are finite in the default dtype as well, in which modules hold them.
    """
    exact = as_numbers(where, name, values, "nested lists of numbers")
    ones = (1,) * (len(shape) - exact.ndim) + tuple(exact.shape)
    if len(ones) != len(shape) or any(size not in (1, own) for size, own in zip(ones, shape, strict=True)):
        given = f"{name} of shape {tuple(exact.shape)}"
        raise GraphError(where, given, f"expected {shape}, the shape of the input, or one that broadcasts to it")
    if not bool(exact.to(torch.get_default_dtype()).isfinite().all()):
        raise GraphError(where, f"{name} with NaN or infinity", f"{name} must be finite, in the default dtype")
    return exact.expand(shape).clone()


def require_precise(log_prob: Tensor) -> Tensor:
    """Return log-densities; refuse them in half precision, which rounds sums over all elements to a few digits."""
    if log_prob.dtype in (torch.float16, torch.bfloat16):
        advice = "log-densities would have only two or three digits: keep the flow in float32 and use torch.autocast"
        raise InputTypeError("Flow.log_prob", f"a flow in {log_prob.dtype}", advice)
    return log_prob


def _describe(name: str, value: int) -> str:
    """Name and value of an int; the number of bits if it has more digits than Python prints."""
    return f"{name}={value}" if value.bit_length() < 1000 else f"{name} of {value.bit_length()} bits"
