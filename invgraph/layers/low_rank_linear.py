"""Linear map of the channels: the identity plus a learned low-rank matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import check_subnet, make_subnet, require_subnet_for_conditions
from invgraph.errors import GraphError
from invgraph.numerics.linalg import own_precision, widen
from invgraph.numerics.seeding import normal, start_seed, to_defaults
from invgraph.numerics.soft_clamp import require_clamp, soft_clamp
from invgraph.shapes import Shape, Tensors, as_shape, positions, repeat_rows


class LowRankLinear(Invertible):
    r"""Multiply the channels by the identity plus a learned low-rank matrix, the same at every position.

    .. math:: y = x + U Q^\top x, \qquad U = (1 - Q Q^\top) A + Q (T - 1), \qquad \det(1 + U Q^\top) = \det T

    where Q has r orthonormal columns, A is any matrix, and T is upper triangular with a positive diagonal (Sylvester
    flow). By the matrix determinant lemma and the Woodbury identity, both directions and the determinant cost O(r C)
    instead of O(C^2), and the map is invertible for all parameters. It is initialized to the identity.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions are vectors ``(B, C_c)``.

    Log-det:
        Number of positions times the sum of the logarithms of T's diagonal, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions, all of them vectors.
        rank: Rank r of the learned matrix, at most C.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module`` of a network that reads the conditions; its output
            is added to A and T. None without conditions.
        clamp: Bound of the absolute value of the logarithms of T's diagonal. Default: 1.9.
        seed: Seed of the initial Q. None: a seed from the layer's place in the graph,
            which differs from block to block; 0 outside a graph.

    Raises:
        GraphError: If the rank exceeds the number of channels, a subnet is given without conditions, or conditions
            without a subnet.
        ArgumentError: If an argument has the wrong type.

    References:
        R. van den Berg, L. Hasenclever, J. M. Tomczak, M. Welling, "Sylvester Normalizing Flows for Variational
        Inference", 2018, https://arxiv.org/abs/1803.05649

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.LowRankLinear((8,), rank=2)((torch.ones(1, 8),))
        >>> y.detach(), log_det.detach()
        (tensor([[1., 1., 1., 1., 1., 1., 1., 1.]]), tensor([0.]))
    """

    range_kind = "any"
    conditional = True
    condition_argument = "subnet"
    fixed_size_reason = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        rank: int,
        subnet: object = None,
        clamp: float = 1.9,
        seed: int | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        where = "LowRankLinear"
        require_subnet_for_conditions(where, subnet, self.cond_shapes)
        if any(len(shape) > 1 for shape in self.cond_shapes):
            raise GraphError(
                where,
                f"conditions of shapes {self.cond_shapes}",
                "conditions must be vectors (C,): encode others in a FeatureNode",
            )
        seed = start_seed(where, seed)
        clamp = require_clamp(where, clamp, "atan")
        channels = self.in_shapes[0][0]
        (rank,) = as_shape((rank,), f"{where} (rank)")
        if rank > channels:
            raise GraphError(where, f"rank={rank} for {channels} channels", f"rank must be at most {channels}")
        self.rank, self.clamp = rank, clamp
        self.directions = nn.Parameter(to_defaults(normal((channels, rank), seed)))
        self.numbers = nn.Parameter(torch.zeros(rank * (rank + channels)))
        self.subnet = None
        if subnet is not None:
            first, *others = self.cond_shapes
            self.subnet = make_subnet(where, subnet, first, tuple(others), (len(self.numbers),))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if self.subnet is not None:
            first, *others = self.cond_shapes
            check_subnet(self.label, self.subnet, first, tuple(others), (len(self.numbers),))

    def precompute(self, cs: Tensors) -> Precomputed:
        """Return the part of U outside the span of Q, T, and the logs of T's diagonal; one row without conditions."""
        params = self.numbers.unsqueeze(0)
        if self.subnet is not None:
            params = params + self.subnet(cs[0], cs[1:]).to(cs[0].dtype)
        with own_precision(params):
            square, rest = widen(params).split([self.rank**2, params.shape[1] - self.rank**2], dim=1)
            raw, free = torch.unflatten(square, 1, (self.rank, self.rank)), torch.unflatten(rest, 1, (-1, self.rank))
            logs = soft_clamp(raw.diagonal(dim1=1, dim2=2), self.clamp, "atan")
            q = self._span()
            outside = free - q @ (q.t() @ free)
            return Precomputed((outside, raw.triu(1) + torch.diag_embed(torch.exp(logs)), logs))

    def _forward(self, xs: Tensors, given: Any) -> Result:
        x = xs[0]
        outside, triangle, logs = (repeat_rows(part, x.shape[0]) for part in self._precomputed(given))
        with own_precision(x):
            q, wide = self._span(), _columns(x)
            within = q.t() @ wide
            y = wide + outside @ within + q @ (triangle @ within - within)
        return (y.view_as(x).to(x.dtype),), (logs.sum(1) * positions(self.in_shapes[0])).to(x.dtype)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        y = ys[0]
        outside, triangle, logs = (repeat_rows(part, y.shape[0]) for part in self._precomputed(given))
        with own_precision(y):
            q, wide = self._span(), _columns(y)
            # Q^T y = T Q^T x, so solve for the component within the span of Q first.
            turned = q.t() @ wide
            within = torch.linalg.solve_triangular(triangle, turned, upper=True)
            x = wide - outside @ within - q @ (turned - within)
        return (x.view_as(y).to(y.dtype),), (logs.sum(1) * -positions(self.in_shapes[0])).to(y.dtype)

    def _span(self) -> Tensor:
        """Return Q: the learned directions, orthonormalized, with a positive diagonal of R.

        The signs of LAPACK's are those of entries of the directions, and jump where these pass zero.
        """
        q, r = torch.linalg.qr(widen(self.directions))
        span: Tensor = torch.where(r.diagonal() < 0, -q, q)
        return span

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, clamp={self.clamp}"


def _columns(x: Tensor) -> Tensor:
    """Return the channels at every position, ``(B, C, positions)``."""
    return widen(x).flatten(2) if x.ndim > 2 else widen(x).unsqueeze(2)
