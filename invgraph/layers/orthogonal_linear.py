"""A learned rotation of the channels."""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from invgraph.arguments import require_choice
from invgraph.core.invertible import Invertible, Result
from invgraph.numerics.channels import mix
from invgraph.numerics.linalg import Chart, random_square, rotation
from invgraph.numerics.seeding import start_seed
from invgraph.shapes import Tensors


class OrthogonalLinear(Invertible):
    r"""Rotate the channels by a learned orthogonal matrix, the same at every position.

    .. math:: y = Q x, \qquad Q = \exp(A) \ \text{or} \ (1 + A)^{-1} (1 - A), \qquad A = S - S^\top

    for a learned square matrix S. :class:`~invgraph.Orthogonal` is the fixed one, :class:`~invgraph.Householder` the
    one for many channels or conditions.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        chart: ``"exp"`` (default), the matrix exponential, which reaches every rotation, or ``"cayley"``, which reaches
            all but those by half a turn and is cheaper.
        seed: Seed of the rotation at the start. None: a seed from the layer's place in the graph, which differs from
            block to block; 0 outside a graph.

    Raises:
        GraphError: If there is no such chart.

    References:
        M. Lezcano-Casado, D. Martinez-Rubio, "Cheap Orthogonal Constraints in Neural Networks", 2019,
        https://arxiv.org/abs/1901.08428; A. Cayley, "Sur quelques proprietes des determinants gauches", 1846,
        https://doi.org/10.1515/crll.1846.32.119

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.OrthogonalLinear((3,), chart="cayley")((torch.ones(2, 3),))
        >>> bool((y.square().sum(1) - 3).abs().max() < 1e-5), log_det
        (True, tensor([0., 0.]))
    """

    range_kind = "any"
    fixed_size_reason = None

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, chart: Chart = "exp", seed: int | None = None
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        seed = start_seed("OrthogonalLinear", seed)
        self.chart = require_choice("OrthogonalLinear", "chart", chart, get_args(Chart))
        self.square = nn.Parameter(random_square(self.in_shapes[0][0], seed))

    def matrix(self) -> Tensor:
        """Return Q, of shape ``(C, C)``."""
        return rotation(self.square, self.chart)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return (mix(xs[0], self.matrix()),), xs[0].new_zeros(xs[0].shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (mix(ys[0], self.matrix().t()),), ys[0].new_zeros(ys[0].shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, chart={self.chart!r}"
