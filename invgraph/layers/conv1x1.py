"""Glow's learned mixing of the channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invgraph.arguments import as_matrix, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.numerics.channels import mix, random_rotation
from invgraph.numerics.linalg import own_precision, random_square, rotation, widen
from invgraph.numerics.seeding import settled, start_seed
from invgraph.shapes import Tensors

_WORST_CONDITION = 1e12


class Conv1x1(Invertible):
    r"""Multiply the channels with a learned matrix, the same at every position (GLOW).

    .. math:: y = W x, \qquad W = P L \left(U + \operatorname{diag}(\sigma e^{s})\right)

    with a fixed permutation P, fixed signs :math:`\sigma`, learned triangular L and U and learned s: it stays
    invertible, and its determinant costs nothing. With ``orthogonal`` it is a rotation,
    :math:`W = \exp(A - A^\top)`.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        P times the sum of s, nats per sample, for P positions; 0 if orthogonal.

    Arguments:
        in_shapes: shape of the input.
        orthogonal: a learned rotation instead of any matrix.
        seed: Seed of the random rotation at the start. None: a seed from the layer's place in the graph, which differs
            from block to block; 0 outside a graph.
        matrix: the matrix at the start instead, of shape (C, C).

    Raises:
        GraphError: the matrix has the wrong shape, or can't be inverted.

    References:
        D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018,
        https://arxiv.org/abs/1807.03039

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Conv1x1((2, 4, 4), matrix=[[2.0, 1.0], [0.0, 1.0]])
        >>> (y,), log_det = layer((torch.ones(1, 2, 4, 4),))
        >>> y[0, :, 0, 0].detach(), log_det.detach()  # 16 log 2
        (tensor([3., 1.]), tensor([11.0904]))
    """

    order: Tensor
    signs: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        orthogonal: bool = False,
        seed: int | None = None,
        matrix: Tensor | Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        seed = start_seed("Conv1x1", seed)
        channels, *sizes = self.in_shapes[0]
        self.positions = math.prod(sizes)
        self.orthogonal = require_flag("Conv1x1", "orthogonal", orthogonal)
        if self.orthogonal:
            if matrix is not None:
                advice = "a rotation starts from its seed: give the one or the other"
                raise GraphError("Conv1x1", "orthogonal=True and a matrix", advice)
            self.square = nn.Parameter(random_square(channels, seed))
            return
        start = random_rotation(channels, seed) if matrix is None else _checked(matrix, channels)
        permutation, lower, upper = torch.linalg.lu(start)
        diagonal = upper.diagonal()
        # L below the diagonal, U above it, s on its own: what is left over of each is 0 or 1.
        self.factors = nn.Parameter(settled(lower.tril(-1) + upper.triu(1)))
        self.log_scale = nn.Parameter(settled(diagonal.abs().log()))
        self.register_buffer("order", settled(permutation.argmax(1)))
        self.register_buffer("signs", settled(diagonal.sign()))

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        if self.orthogonal:
            return (mix(xs[0], rotation(self.square, "exp")),), xs[0].new_zeros(xs[0].shape[0])
        with own_precision(xs[0]):
            lower, upper = self._triangles()
            matrix = (lower @ upper)[self.order].to(xs[0].dtype)
        return (mix(xs[0], matrix),), self._log_det(xs[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        if self.orthogonal:
            return (mix(ys[0], rotation(self.square, "exp").t()),), ys[0].new_zeros(ys[0].shape[0])
        with own_precision(ys[0]):
            lower, upper = self._triangles()
            eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
            half = torch.linalg.solve_triangular(lower, eye, upper=False, unitriangular=True)
            inverse = torch.linalg.solve_triangular(upper, half, upper=True)[:, self.order]
        return (mix(ys[0], inverse.to(ys[0].dtype)),), -self._log_det(ys[0])

    def _triangles(self) -> tuple[Tensor, Tensor]:
        factors, diagonal = widen(self.factors), widen(self.signs * torch.exp(self.log_scale))
        one = torch.eye(len(factors), dtype=factors.dtype, device=factors.device)
        return factors.tril(-1) + one, factors.triu(1) + torch.diag(diagonal)

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * self.positions).expand(x.shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, orthogonal={self.orthogonal}"


def _checked(matrix: Tensor | Sequence[Sequence[float]], channels: int) -> Tensor:
    """The matrix in float64, on the CPU; refused if it is not square of this size, or has no inverse."""
    exact = as_matrix("Conv1x1", matrix)
    if exact.shape != (channels, channels):
        given = f"matrix of shape {tuple(exact.shape)}"
        raise GraphError("Conv1x1", given, f"expected ({channels}, {channels}) for {channels} channels")
    condition = torch.linalg.cond(exact).item() if bool(exact.isfinite().all()) else math.inf
    if not condition < _WORST_CONDITION:
        told = f"{condition:.0e}".replace("e+", "e")
        raise GraphError("Conv1x1", f"a matrix of condition number {told}", f"not invertible (cond {told})")
    return exact
