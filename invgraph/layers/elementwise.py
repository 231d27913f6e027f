"""Elementwise transform whose parameters depend on the conditions only, or are learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.subnet import (
    check_subnet,
    lead_first,
    leading,
    make_subnet,
    require_subnet_for_conditions,
    spread_vector,
)
from invgraph.errors import GraphError
from invgraph.shapes import Shape, Tensors, repeat_rows
from invgraph.transforms.transform import Transform, require_transform


class Elementwise(Invertible):
    r"""Transform each element with parameters that depend on the conditions only, or that are learned directly.

    .. math:: y_i = T(x_i;\ \theta_i(c))

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; with a subnet, the conditions are vectors ``(B, C_c)`` (one set of
        parameters per channel), or some of them have the spatial size of x (one set per element).

    Log-det:
        Sum of the transform's log-derivatives over all elements, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Elementwise transform, e.g. ``Affine()``.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module`` of a network that reads the conditions; None for
            one learned set of parameters per element, initialized to zero.

    Raises:
        GraphError: If a subnet is given without conditions, or conditions without a subnet.
        ArgumentError: If an argument has the wrong type.

    References:
        G. Papamakarios, E. Nalisnick, D. J. Rezende, S. Mohamed, B. Lakshminarayanan, "Normalizing Flows for
        Probabilistic Modeling and Inference", 2019, https://arxiv.org/abs/1912.02762

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Elementwise((4,), ((10,),), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=16))
        >>> (y,), log_det = layer((torch.ones(2, 4),), (torch.zeros(2, 10),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 4]), torch.Size([2]))
    """

    conditional = True
    condition_argument = "subnet"
    fixed_size_reason = None

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, transform: Transform, subnet: object = None
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_transform("Elementwise", transform)
        require_subnet_for_conditions("Elementwise", subnet, self.cond_shapes)
        self.transform = transform
        shape = self.in_shapes[0]
        if subnet is None:
            # A transform that takes no parameters has nothing to learn: don't register an empty parameter.
            count = transform.params_per_element
            learned = nn.Parameter(torch.zeros(count, *shape)) if count else None
            self.params: nn.Parameter | None = learned
            self.subnet = None
        else:
            self.lead = leading(self.cond_shapes)
            self.params = None
            self.subnet = make_subnet("Elementwise", subnet, *self._subnet_shapes())

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what the subnet reads, as data and conditions, and of what it returns."""
        first, *others = lead_first(self.cond_shapes, self.lead)
        channels, *sizes = self.in_shapes[0]
        return first, tuple(others), (self.transform.params_per_element * channels, *(sizes if len(first) > 1 else ()))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        if self.subnet is not None:
            super()._resize(before)
            check_subnet(self.label, self.subnet, *self._subnet_shapes())
        elif self.params is not None:
            given = f"input of shape {self.in_shapes[0]} instead of {before[0]}"
            advice = "it has parameters for each element: use ActNorm or LearnedScaling(per_channel=True)"
            raise GraphError(self.label, given, f"its size can't change: {advice}")

    def _forward(self, xs: Tensors, given: Any) -> Result:
        y, log_det = self.transform.forward(xs[0], self._params(xs[0], given))
        return (y,), log_det

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        x, log_det = self.transform.inverse(ys[0], self._params(ys[0], given))
        return (x,), log_det

    def precompute(self, cs: Tensors) -> Precomputed:
        """Return the subnet's parameters, ``(B, params_per_element, C)``, or of spatial size if a condition has one."""
        if self.subnet is None:
            return Precomputed()
        first, *others = lead_first(cs, self.lead)
        params: Tensor = self.subnet(first, tuple(others)).to(first.dtype)
        return Precomputed((torch.unflatten(params, 1, (self.transform.params_per_element, self.in_shapes[0][0])),))

    def _params(self, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of every element of every sample."""
        if self.params is not None:
            return self.params.expand(x.shape[0], *self.params.shape)
        if self.subnet is None:
            return x.new_empty(x.shape[0], 0, *x.shape[1:])
        (params,) = self._precomputed(given)
        spread = spread_vector(repeat_rows(params, x.shape[0]), x.ndim + 1)
        return spread.expand(x.shape[0], self.transform.params_per_element, *x.shape[1:])

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        found = self.transform.follow(intervals[0], inverse=inverse)
        return (found,)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}"
