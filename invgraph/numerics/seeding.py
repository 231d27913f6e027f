"""Numbers from a seed: the same on every machine, whatever the default dtype and device are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU: those of other devices draw other numbers."""
    return torch.Generator("cpu").manual_seed(seed)


def normal(shape: Sequence[int], seed: int | torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers on the CPU; several draws go on with one generator."""
    source = seed if isinstance(seed, torch.Generator) else generator(seed)
    return torch.randn(tuple(shape), generator=source, dtype=dtype, device="cpu")


def settled(numbers: Tensor) -> Tensor:
    """A layer's constant where the layer is built: on the default device, in the default dtype if it is floating."""
    dtype = torch.get_default_dtype() if numbers.is_floating_point() else numbers.dtype
    return numbers.to(torch.get_default_device(), dtype)
