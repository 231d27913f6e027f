"""Checks of the arguments of layers, safe for any object whatever: nothing here compares or iterates it unseen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invgraph.errors import ArgumentError, GraphError


def require_seed(where: str, seed: object, bits: int = 64) -> int:
    """The seed; refused if it can't seed a generator, or, with 63 bits, be held by an int64 tensor."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentError(where, f"seed={seed!r}", "seed must be an int")
    if not -(2**63) <= seed < 2**bits:
        # A huge int has more digits than Python prints.
        given = f"seed={seed}" if seed.bit_length() < 1000 else f"seed of {seed.bit_length()} bits"
        raise GraphError(where, given, f"seed must be at least -2**63 and below 2**{bits}")
    return seed


def as_number(where: str, name: str, value: object) -> float:
    """The number as a float; an int beyond every float is infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def require_amount(where: str, name: str, value: object) -> float:
    """The number; refused if it is none, not finite, or negative."""
    amount = as_number(where, name, value)
    if not (math.isfinite(amount) and amount >= 0):
        raise ArgumentError(where, f"{name}={amount}", f"{name} must be a number >= 0, and finite")
    return amount


def require_count(where: str, name: str, value: object, least: int = 1) -> None:
    """Refuse what is no int, or too small a one, or more than torch can count."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be an int")
    if value < least:
        raise GraphError(where, f"{name}={value}", f"{name} must be at least {least}")
    if value >= 2**63:
        raise GraphError(where, f"{name} of {value.bit_length()} bits", f"{name} must be below 2**63")


def require_flag(where: str, name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ArgumentError(where, f"{name}: {type(value).__name__}", f"{name} must be True or False")


def is_one_of(value: object, choices: Sequence[object]) -> bool:
    """Whether the value is one of these strings or ints."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value in choices


def as_matrix(where: str, matrix: object) -> Tensor:
    """The numbers in float64, on the CPU."""
    if isinstance(matrix, Tensor) and matrix.is_complex():
        raise ArgumentError(where, f"matrix: {matrix.dtype}", "matrix must be real")
    try:
        return torch.as_tensor(matrix, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        given = f"matrix: {type(matrix).__name__}"
        raise ArgumentError(where, given, "matrix must be a tensor, or rows of numbers") from error
