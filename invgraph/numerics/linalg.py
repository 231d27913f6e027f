"""What learned linear layers share: rotations from any square matrix, and a dtype in which to factorise."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from invgraph.numerics.seeding import normal, settled

Chart = Literal["exp", "cayley"]


def own_precision(x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast away: linear maps of data stay in the data's dtype."""
    # Meta tensors have no autocast.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def widen(x: Tensor) -> Tensor:
    """The tensor in a dtype that LAPACK knows: half precision in single, all else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def random_square(size: int, seed: int) -> Tensor:
    """A normal matrix whose :func:`rotation` turns by angles of order one; a generator of its own draws it."""
    return settled(normal((size, size), seed) / math.sqrt(size))


def rotation(square: Tensor, chart: Chart) -> Tensor:
    """An orthogonal matrix of determinant 1, from the antisymmetric part of any square matrix.

    ``"exp"``: the matrix exponential, which reaches every rotation; ``"cayley"``: (1 + A)^-1 (1 - A), which reaches all
    but those that turn by half a circle, at a third of the cost.
    """
    with own_precision(square):
        wide = widen(square)
        skew = wide - wide.t()
        if chart == "exp":
            turned: Tensor = torch.linalg.matrix_exp(skew)
        else:
            one = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
            turned = torch.linalg.solve(one + skew, one - skew)
        return turned.to(square.dtype)
