"""Checks of the arguments of layers, safe for any object whatever: nothing here compares or iterates it unseen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invgraph.errors import ArgumentError, GraphError


def require_seed(where: str, seed: object) -> int:
    """The seed; refused if it can't seed a generator."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentError(where, f"seed={seed!r}", "seed must be an int")
    if not -(2**63) <= seed < 2**64:
        raise GraphError(where, f"seed={seed}", "seed must fit into 64 bits")
    return seed


def require_amount(where: str, name: str, value: object) -> float:
    """The number; refused if it is none, not finite, or negative."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            amount = float(value)
        except OverflowError:  # an int beyond every float
            amount = math.inf
        if math.isfinite(amount) and amount >= 0:
            return amount
    raise ArgumentError(where, f"{name}={value!r}", f"{name} must be a number >= 0, and finite")


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
