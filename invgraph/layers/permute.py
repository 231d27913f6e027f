"""Fixed hard permutation of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.arguments import is_int, require_int
from invgraph.core.invertible import Invertible, Result
from invgraph.core.orders import load_order
from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.seeding import start_seed, to_defaults
from invgraph.shapes import Shape, Tensors


class Permute(Invertible):
    r"""Put the channels, or the positions along another axis, in a different, fixed order.

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
        dim: Axis, not counting the batch: 0 is the channel axis. Default: 0.

    Raises:
        GraphError: If ``order`` is not a permutation of the axis, or there is no such axis.
        ArgumentError: If an argument has the wrong type.

    References:
        L. Ardizzone et al., "Analyzing Inverse Problems with Invertible Neural Networks", 2018,
        https://arxiv.org/abs/1808.04730

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Permute((3,), order=(2, 0, 1))((torch.tensor([[1.0, 2.0, 3.0]]),))
        >>> y
        tensor([[3., 1., 2.]])
    """

    range_kind = "same"
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
        dim: int = 0,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        shape = self.in_shapes[0]
        self.dim = dim = require_int("Permute", "dim", dim)
        if not 0 <= dim < len(shape):
            raise GraphError("Permute", f"dim={dim} of shape {shape}", f"dim must be in 0..{len(shape) - 1}, no batch")
        channels = shape[dim]
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

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if self.in_shapes[0][self.dim] != len(self.order):
            given = f"input of shape {self.in_shapes[0]} instead of {before[0]}"
            advice = f"it orders {len(self.order)} places along axis {self.dim}"
            raise GraphError(self.label, given, f"its size can't change: {advice}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        load_order(self, state_dict, prefix, args[-1])

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        y = xs[0].index_select(self.dim + 1, self.order)
        return (y,), y.new_zeros(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        x = ys[0].index_select(self.dim + 1, self.inverse_order)
        return (x,), x.new_zeros(x.shape[0])

    def extra_repr(self) -> str:
        return super().extra_repr() if self.dim == 0 else f"{super().extra_repr()}, dim={self.dim}"
