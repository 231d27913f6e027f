"""Reflections of the channels, learned or computed from conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import (
    check_subnet,
    lead_first,
    leading,
    make_subnet,
    require_subnet_for_conditions,
    spread_vector,
)
from invgraph.numerics.linalg import unit_vectors
from invgraph.numerics.seeding import normal, start_seed, to_defaults
from invgraph.shapes import Shape, Tensors, as_shape, repeat_rows


class Householder(Invertible):
    r"""Reflect the channels at several hyperplanes, one after the other: an orthogonal map.

    .. math:: y = H_n \cdots H_1 x, \qquad H_i = 1 - 2 \frac{v_i v_i^\top}{v_i^\top v_i}

    The vectors are learned; with conditions, a subnet adds to them. As many reflections as channels reach every
    orthogonal matrix; the cost grows with their number, and not with the square of the channels.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; with a subnet, the conditions are vectors ``(B, C_c)`` (the same
        reflections at every position), or some have the spatial size of x (reflections for each position).

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        reflections: Number of reflections. Default: 4.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module`` of a network that reads the conditions.
        seed: Seed of the vectors at the start. None: a seed from the layer's place in the graph, which differs from
            block to block; 0 outside a graph.

    Raises:
        GraphError: If a subnet is given without conditions, or conditions without a subnet.

    References:
        A. S. Householder, "Unitary Triangularization of a Nonsymmetric Matrix", 1958,
        https://doi.org/10.1145/320941.320947; J. M. Tomczak, M. Welling, "Improving Variational Auto-Encoders using
        Householder Flow", 2016, https://arxiv.org/abs/1611.09630

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Householder((4,), ((10,),), reflections=2, subnet=ig.nets.MLP(hidden=16))
        >>> (y,), log_det = layer((torch.ones(2, 4),), (torch.zeros(2, 10),))
        >>> bool((y.square().sum(1) - 4).abs().max() < 1e-5), log_det
        (True, tensor([0., 0.]))
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
        reflections: int = 4,
        subnet: object = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_subnet_for_conditions("Householder", subnet, self.cond_shapes)
        seed = start_seed("Householder", seed)
        (self.reflections,) = as_shape((reflections,), "Householder (reflections)")
        shape = self.in_shapes[0]
        self.vectors = nn.Parameter(to_defaults(normal((self.reflections, shape[0]), seed)))
        self.subnet = None
        if subnet is not None:
            self.lead = leading(self.cond_shapes)
            self.subnet = make_subnet("Householder", subnet, *self._subnet_shapes())

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what the subnet reads, as data and conditions, and of what it returns."""
        first, *others = lead_first(self.cond_shapes, self.lead)
        channels, *sizes = self.in_shapes[0]
        return first, tuple(others), (self.reflections * channels, *(sizes if len(first) > 1 else ()))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if self.subnet is not None:
            check_subnet(self.label, self.subnet, *self._subnet_shapes())

    def precompute(self, cs: Tensors) -> Precomputed:
        """Return the unit vectors, ``(B, reflections, C, ...)``; one row where they are learned alone."""
        vectors = self.vectors.unsqueeze(0)
        if self.subnet is not None:
            first, *others = lead_first(cs, self.lead)
            added = self.subnet(first, tuple(others)).to(first.dtype)
            added = torch.unflatten(added, 1, (self.reflections, vectors.shape[2]))
            vectors = spread_vector(vectors, added.ndim) + added
        return Precomputed((unit_vectors(vectors, 2),))

    def _forward(self, xs: Tensors, given: Any) -> Result:
        (units,) = self._precomputed(given)
        return _reflect(xs[0], units, range(self.reflections))

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        (units,) = self._precomputed(given)
        return _reflect(ys[0], units, reversed(range(self.reflections)))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reflections={self.reflections}"


def _reflect(x: Tensor, units: Tensor, order: Iterable[int]) -> Result:
    units = spread_vector(repeat_rows(units, x.shape[0]), x.ndim + 1)
    y = x
    for index in order:
        unit = units[:, index]
        y = y - 2 * unit * (unit * y).sum(1, keepdim=True)
    return (y,), x.new_zeros(x.shape[0])
