"""FrEIA's learned rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invgraph.errors import GraphError
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, no_log_jac, require_vector
from invgraph.numerics.channels import mix
from invgraph.numerics.linalg import own_precision

__all__ = ["HouseholderPerm", "OrthogonalTransform"]


def orthonormal_rows(matrix: Tensor) -> Tensor:
    """Return the rows made orthonormal in their order, each keeping its side, as by Gram and Schmidt."""
    q, r = torch.linalg.qr(matrix.t())
    rows: Tensor = (q * r.diagonal().sign()).t()
    return rows


class OrthogonalTransform(OneInput):
    """A learned matrix that is made orthogonal again from time to time, with a clamped scale and a shift.

    Arguments:
        dims_in: Shape of the vector, in a list.
        dims_c: Not used.
        correction_interval: Number of backward passes after which the matrix is made orthogonal.
        clamp: Bound of the log scale.
    """

    _due = False  # time to make the matrix orthogonal

    def __init__(self, dims_in: Any, dims_c: Any = None, correction_interval: int = 256, clamp: float = 5.0) -> None:
        super().__init__(dims_in, dims_c)
        require_vector(self, self.dims_in)
        self.width = self._channels
        self.clamp = clamp
        self.correction_interval = correction_interval
        self.back_counter = int(np.random.randint(0, correction_interval)) // 2
        square = torch.randn(self.width, self.width)
        self.weights = nn.Parameter(torch.linalg.svd(square + square.t()).U.contiguous())
        self.bias = nn.Parameter(0.05 * torch.randn(1, self.width))
        self.scaling = nn.Parameter(0.02 * torch.randn(1, self.width))

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        self._correct()
        log_scale = self.clamp * 0.636 * torch.atan(self.scaling / self.clamp)
        log_jac = log_scale.sum(1).expand(x[0].shape[0])
        if rev:
            y = mix(x[0] * torch.exp(-log_scale) - self.bias, self.weights)
        else:
            y = (mix(x[0], self.weights.t()) + self.bias) * torch.exp(log_scale)
        if y.requires_grad:
            y.register_hook(self._count)
        return (y,), -log_jac if rev else log_jac

    def _count(self, grad: Tensor) -> None:
        """Count a backward pass; FrEIA draws the next interval here as well."""
        self.back_counter += 1
        if self.back_counter > self.correction_interval:
            self.back_counter = int(np.random.randint(0, self.correction_interval)) // 4
            self._due = True

    @torch.no_grad()
    def _correct(self) -> None:
        """Make the matrix orthogonal if it is time; at a call, because a backward pass may need the old one."""
        if self._due:
            self._due = False
            self.weights.copy_(orthonormal_rows(self.weights))

    def output_dims(self, input_dims: Any) -> Any:
        require_vector(self, input_dims)
        return input_dims


class HouseholderPerm(OneInput):
    """A product of Householder reflections, learned, fixed, or given as the condition.

    Arguments:
        dims_in: Shape of the vector, in a list.
        dims_c: None, or the shape ``(C, n_reflections)`` of the condition that holds the vectors.
        n_reflections: Number of reflections, at least 2.
        fixed: Draw the reflections once and keep them.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dims_c: Any = None, n_reflections: int = 1, fixed: bool = False) -> None:
        super().__init__(dims_in, dims_c)
        require_vector(self, self.dims_in)
        self.width = self._channels
        self.n_reflections = n_reflections
        self.fixed = fixed
        self.conditional = len(self.dims_c) > 0
        if n_reflections < 2:
            raise GraphError("HouseholderPerm", f"n_reflections={n_reflections}", "need at least 2 reflections")
        if self.conditional:
            self._check_condition()
            return
        if fixed:
            vectors = torch.randn(self.width, n_reflections)
        else:
            vectors = torch.eye(self.width, n_reflections) + 0.1 * torch.randn(self.width, n_reflections)
        self.Vs = nn.Parameter(vectors.t().contiguous(), requires_grad=not fixed)
        if fixed:
            self.W = nn.Parameter(reflections(self.Vs.detach()), requires_grad=False)
            self.register_parameter("weight", self.W)  # FrEIA's checkpoints hold it under both names

    def _check_condition(self) -> None:
        if len(self.dims_c) != 1 or math.prod(self.dims_c[0]) != self.width * self.n_reflections:
            given = f"conditions of shapes {', '.join(map(str, self.dims_c))}"
            raise GraphError("HouseholderPerm", given, f"expected one of shape ({self.width}, {self.n_reflections})")
        if self.fixed:
            raise GraphError("HouseholderPerm", "fixed=True with a condition", "it can't be fixed and conditional")

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | float]:
        zero = no_log_jac(x[0], jac)
        if self.conditional:
            vectors = c[0].reshape(-1, self.width, self.n_reflections).transpose(-1, -2)
            matrices = reflections(vectors)
            matrices = matrices.transpose(-1, -2) if rev else matrices
            return (torch.matmul(x[0].unsqueeze(1), matrices).squeeze(1),), zero
        matrix = self.W if self.fixed else reflections(self.Vs)
        return (mix(x[0], matrix if rev else matrix.t()),), zero

    def output_dims(self, input_dims: Any) -> Any:
        require_vector(self, input_dims)
        return input_dims


def reflections(vectors: Tensor) -> Tensor:
    """Return the product of the reflections ``1 - 2 v v^T / v^T v`` at vectors of shape ``(..., n, C)``, in order."""
    with own_precision(vectors):
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        product = torch.eye(vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
        if vectors.ndim == 2:  # few small operations: a call of each costs more than its arithmetic
            for v in vectors.unbind():
                product = torch.addr(product, product @ v, v, alpha=-2)
            return product
        for v in vectors.unbind(-2):
            row = v.unsqueeze(-2)
            product = torch.addcmul(product, product @ row.transpose(-1, -2), row, value=-2)
        return product
