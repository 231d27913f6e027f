"""Learned mixing of the channels, as in Glow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invgraph.arguments import as_matrix, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.fused.autograd import needs_grad
from invgraph.fused.plu import FactorsKernel, Remembered
from invgraph.fused.switch import fused
from invgraph.numerics.channels import mix, random_rotation
from invgraph.numerics.linalg import own_precision, random_square, rotation, widen
from invgraph.numerics.seeding import start_seed, to_defaults
from invgraph.shapes import Tensors, positions
from invgraph.torch_internals import is_plain

_WORST_CONDITION = 1e12


class Conv1x1(Invertible):
    r"""Multiply the channels by a learned matrix, the same at every position (GLOW).

    .. math:: y = W x, \qquad W = P L \left(U + \operatorname{diag}(\sigma e^{s})\right)

    with a fixed permutation P, fixed signs :math:`\sigma`, learned triangular matrices L and U and learned s. W is
    always invertible, and its determinant is free. With ``orthogonal=True`` it is a rotation instead,
    :math:`W = \exp(A - A^\top)`.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        Number of positions times the sum of s, nats per sample; 0 if orthogonal.

    Arguments:
        in_shapes: Shape of the input.
        orthogonal: True for a learned rotation instead of a general matrix. Default: False.
        seed: Seed of the random rotation that W is initialized to. None: a seed from the layer's place in the graph,
            which differs from block to block; 0 outside a graph.
        matrix: Initial value of W, of shape ``(C, C)``; replaces the random rotation.

    Raises:
        GraphError: If the matrix has the wrong shape, is not invertible, or is given together with ``orthogonal=True``.
        ArgumentError: If an argument has the wrong type.

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

    range_kind = "any"
    fixed_size_reason = None
    order: Tensor
    signs: Tensor
    _fused: Remembered | None = None

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
        channels = self.in_shapes[0][0]
        self.orthogonal = require_flag("Conv1x1", "orthogonal", orthogonal)
        if self.orthogonal:
            if matrix is not None:
                advice = "a rotation is initialized from its seed: give one or the other"
                raise GraphError("Conv1x1", "orthogonal=True and a matrix", advice)
            self.square = nn.Parameter(random_square(channels, seed))
            return
        start = random_rotation(channels, seed) if matrix is None else _require_regular(matrix, channels)
        permutation, lower, upper = torch.linalg.lu(start)
        diagonal = upper.diagonal()
        # One matrix holds L below its diagonal and U above it; the fixed entries of both, 0 or 1, are not stored.
        self.factors = nn.Parameter(to_defaults(lower.tril(-1) + upper.triu(1)))
        self.log_scale = nn.Parameter(to_defaults(diagonal.abs().log()))
        self.register_buffer("order", to_defaults(permutation.argmax(1)))
        self.register_buffer("signs", to_defaults(diagonal.sign()))

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        if self.orthogonal:
            return (mix(xs[0], rotation(self.square, "exp")),), xs[0].new_zeros(xs[0].shape[0])
        kernel = self._kernel(xs[0])
        product = self._product if kernel is None else kernel.run
        return (product(xs[0], self.factors, self.log_scale),), self._log_det(xs[0])

    def _kernel(self, x: Tensor) -> FactorsKernel | None:
        """Return the kernel; None where a step of it would be done in another precision."""
        if not (is_plain(x) and fused.enabled) or x.dtype not in (torch.float32, torch.float64) or x.is_meta:
            return None
        return FactorsKernel(self._product, self.order, self.signs)

    def _remembered_inverse(self, kernel: FactorsKernel) -> Tensor:
        """Return the inverse, which samples use again and again."""
        own, fixed = (self.factors, self.log_scale), (self.order, self.signs)
        if self._fused is None or not self._fused.is_of(*own, *fixed):
            self._fused = Remembered.of(kernel.inverse(*own), *own, *fixed)
        return self._fused.value

    def _product(self, x: Tensor, factors: Tensor, log_scale: Tensor) -> Tensor:
        with own_precision(x):
            lower, upper = self._triangles(factors, log_scale)
            matrix = (lower @ upper)[self.order].to(x.dtype)
        return mix(x, matrix)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        if self.orthogonal:
            return (mix(ys[0], rotation(self.square, "exp").t()),), ys[0].new_zeros(ys[0].shape[0])
        kernel = None if needs_grad(ys[0], self.factors, self.log_scale) else self._kernel(ys[0])
        if kernel is not None and ys[0].device.type == "cpu":  # elsewhere, comparing values would wait for the device
            return (mix(ys[0], self._remembered_inverse(kernel)),), -self._log_det(ys[0])
        with own_precision(ys[0]):
            lower, upper = self._triangles(self.factors, self.log_scale)
            eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
            half = torch.linalg.solve_triangular(lower, eye, upper=False, unitriangular=True)
            inverse = torch.linalg.solve_triangular(upper, half, upper=True)[:, self.order]
        return (mix(ys[0], inverse.to(ys[0].dtype)),), -self._log_det(ys[0])

    def _triangles(self, factors: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        factors, diagonal = widen(factors), widen(self.signs * torch.exp(log_scale))
        one = torch.eye(len(factors), dtype=factors.dtype, device=factors.device)
        return factors.tril(-1) + one, factors.triu(1) + torch.diag(diagonal)

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * positions(self.in_shapes[0])).expand(x.shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, orthogonal={self.orthogonal}"


def _require_regular(matrix: Tensor | Sequence[Sequence[float]], channels: int) -> Tensor:
    """Return the matrix in float64, on the CPU; refuse one of another size, or one that is not invertible."""
    exact = as_matrix("Conv1x1", matrix)
    if exact.shape != (channels, channels):
        given = f"matrix of shape {tuple(exact.shape)}"
        raise GraphError("Conv1x1", given, f"expected ({channels}, {channels}) for {channels} channels")
    condition = torch.linalg.cond(exact).item() if bool(exact.isfinite().all()) else math.inf
    largest = exact.abs().amax().to(torch.get_default_dtype())  # tiny and huge numbers become zero and infinity
    if condition < _WORST_CONDITION and not 0 < largest < math.inf:
        given = f"a matrix of numbers up to {exact.abs().amax().item():.3g}"
        raise GraphError("Conv1x1", given, f"out of the range of {largest.dtype}: scale the data")
    if not condition < _WORST_CONDITION:
        number = f"{condition:.0e}".replace("e+", "e")
        raise GraphError("Conv1x1", f"a matrix of condition number {number}", f"not invertible (cond {number})")
    return exact
