"""Random numbers from seeds: the same on every machine, for any default dtype and device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from invgraph.arguments import require_seed


def generator(seed: int) -> torch.Generator:
    """Return a new generator on the CPU, because generators of other devices draw other numbers."""
    return torch.Generator("cpu").manual_seed(seed)


def normal(shape: Sequence[int], seed: int | torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw standard normal numbers on the CPU, from a seed or the next ones of a generator."""
    source = seed if isinstance(seed, torch.Generator) else generator(seed)
    return torch.randn(tuple(shape), generator=source, dtype=dtype, device="cpu")


def to_defaults(constant: Tensor) -> Tensor:
    """Move a constant to the default device and, if it is floating-point, to the default dtype."""
    dtype = torch.get_default_dtype() if constant.is_floating_point() else constant.dtype
    return constant.to(torch.get_default_device(), dtype)


def seed_from(*facts: object) -> int:
    """Return 63 bits that are the same for equal facts, in every process: they are hashed as text."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "big") >> 1


def start_seed(where: str, seed: object) -> int:
    """Return the seed of what a layer draws when it is built; 0 for None, which a node replaces by one of its own."""
    return 0 if seed is None else require_seed(where, seed)
