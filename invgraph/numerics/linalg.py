"""Linear algebra of the learned linear layers: rotations from square matrices, dtypes for LAPACK."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from invgraph.numerics.seeding import normal, to_defaults

Chart = Literal["exp", "cayley"]


def own_precision(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast, so that linear maps of data keep the dtype of the data."""
    # Meta tensors have no autocast.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def widen(x: Tensor) -> Tensor:
    """Return the tensor in a dtype that LAPACK supports: half precision becomes float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def random_square(size: int, seed: int) -> Tensor:
    """Return a normal matrix whose :func:`rotation` turns by angles of order one, drawn with a private generator."""
    return to_defaults(normal((size, size), seed) / math.sqrt(size))


def rotation(square: Tensor, chart: Chart) -> Tensor:
    """Return an orthogonal matrix of determinant 1, from the antisymmetric part A of a square matrix, or of several.

    ``"exp"`` is the matrix exponential, which reaches every rotation; ``"cayley"`` is (1 + A)^-1 (1 - A), which reaches
    all rotations but those by half a turn, at a third of the cost.
    """
    with own_precision(square):
        wide = widen(square)
        skew = wide - wide.mT
        if chart == "exp":
            turned: Tensor = torch.linalg.matrix_exp(skew)
        else:
            one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
            turned = torch.linalg.solve(one + skew, one - skew)
        return turned.to(square.dtype)


def cosines(size: int) -> Tensor:
    """Return the orthonormal DCT-II matrix in float64, on the CPU."""
    k, n = torch.arange(size, device="cpu")[:, None], torch.arange(size, device="cpu")
    # Reducing the angle in integer arithmetic makes high frequencies as exact as low ones.
    angle = ((2 * n + 1) * k % (4 * size)).double() * (math.pi / (2 * size))
    matrix: Tensor = torch.cos(angle) * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix


def unit_vectors(vectors: Tensor, axis: int) -> Tensor:
    """Return the vectors along an axis, scaled to length 1; a vector of zeros stays zero, and reflects nothing."""
    largest = vectors.detach().abs().amax(axis, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    square = scaled.square().sum(axis, keepdim=True)
    return scaled * torch.rsqrt(torch.where(square > 0, square, 1.0))
