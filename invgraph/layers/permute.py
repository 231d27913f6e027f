"""Fixed hard permutation of the channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invgraph.arguments import is_int
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.seeding import start_seed, to_defaults
from invgraph.shapes import Tensors


class Permute(Invertible):
    r"""Put the channels in another, fixed order.

    .. math:: y_i = x_{\pi(i)}

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        seed: Seed of the random order; the global random state stays untouched. None: a seed from the layer's place in
            the graph, which differs from block to block; 0 outside a graph.
        order: Order to use instead of a random one, a permutation of ``0 .. C-1``.

    Raises:
        GraphError: ``order`` is not a permutation of the channels.

    References:
        L. Ardizzone et al., "Analyzing Inverse Problems with Invertible Neural Networks", 2018,
        https://arxiv.org/abs/1808.04730

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Permute((3,), order=(2, 0, 1))((torch.tensor([[1.0, 2.0, 3.0]]),))
        >>> y
        tensor([[3., 1., 2.]])
    """

    fixed_size_reason = None
    order: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        seed: int | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        channels = self.in_shapes[0][0]
        seed = start_seed("Permute", seed)
        if order is None:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(channels, generator=generator, device="cpu")
        else:
            if not isinstance(order, Sequence) or not all(map(is_int, order)):
                raise ArgumentError("Permute", f"order: {type(order).__name__}", "order must be a tuple of ints")
            places = [int(place) for place in order]
            if sorted(places) != list(range(channels)):
                raise GraphError("Permute", f"order={places}", f"not a permutation of 0..{channels - 1}")
            chosen = torch.tensor(places, device="cpu")
        self.register_buffer("order", to_defaults(chosen))
        self.register_buffer("inverse_order", to_defaults(chosen.argsort()))

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        y = xs[0].index_select(1, self.order)
        return (y,), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        x = ys[0].index_select(1, self.inverse_order)
        return (x,), x.new_zeros(x.shape[0])
