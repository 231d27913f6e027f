"""The density of a graph's outputs: the standard normal, or distributions given by the user."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from invgraph.core.call import Ports
from invgraph.core.ranges import Ends, Knowns
from invgraph.densities.bases import (
    Base,
    as_bases,
    base_log_prob,
    base_shape,
    base_tensor,
    describe_base,
    draw_scaled,
)
from invgraph.densities.support import ends_of, require_fitting, require_fitting_ends
from invgraph.errors import ArgumentError, InputTypeError
from invgraph.shapes import Tensors, numel


class Latents:
    """Density of latents, which are independent of each other from output to output.

    Arguments:
        ports: The outputs of the graph.
        base: One distribution for each output; None for the standard normal.
        ranges: Interval of each output, if they are known.
        ends: Ends of the elements of each output, likewise.

    Raises:
        GraphError: If a base does not fit an output.
    """

    def __init__(self, ports: Ports, base: Base, ranges: Knowns = (), ends: Ends = ()) -> None:
        self.ports = ports
        self.bases = as_bases(base, ports.shapes)
        require_fitting(ports, self.bases, ranges)
        require_fitting_ends(ports, self.bases, ranges, ends)
        self._tensors = tuple(map(base_tensor, self.bases or ()))
        self.dims = numel(ports.shapes)

    @property
    def has_rsample(self) -> bool:
        """True if samples have gradients: unless a base has no ``rsample``."""
        return all(base.has_rsample for base in self.bases or ())

    @property
    def ends(self) -> Ends:
        """Lower and upper ends of each element of the latents, for each output; None if they are not known."""
        bases = self.bases or (None,) * len(self.ports.shapes)
        return tuple([ends_of(base, shape) for base, shape in zip(bases, self.ports.shapes, strict=True)])

    def distributions(self, reference: Tensor | None) -> tuple[Distribution, ...]:
        """Return one distribution for each output; the standard normal in dtype and on the device of a tensor."""
        if self.bases is not None:
            return self.bases
        like = torch.empty(0) if reference is None else reference
        zeros = [torch.zeros(shape, dtype=like.dtype, device=like.device) for shape in self.ports.shapes]
        return tuple([Independent(Normal(zero, torch.ones_like(zero)), zero.ndim) for zero in zeros])

    def log_prob(self, zs: Tensors) -> Tensor:
        """Return the log-density of latents, shape ``(B,)``."""
        if self.bases is None:
            squares = [z.square().flatten(1).sum(1) for z in zs]
            square = squares[0] if len(squares) == 1 else torch.stack(squares).sum(0)
            return -0.5 * square - 0.5 * self.dims * math.log(2 * math.pi)
        self._check(zs)
        pairs = zip(self.bases, zs, strict=True)
        parts = [base_log_prob(base, z, self.ports.label(index)) for index, (base, z) in enumerate(pairs)]
        return torch.stack(parts).sum(0)

    def draw(
        self, count: int, temperature: float, generator: torch.Generator | None, reference: Tensor | None
    ) -> Tensors:
        """Draw latents.

        Arguments:
            count: Number of draws.
            temperature: Factor that scales the deviation from the mean.
            generator: Generator for the standard normal; None for the global one.
            reference: Tensor that has the dtype and is on the device of the flow, if there is one.
        """
        if self.bases is not None:
            if generator is not None:
                advice = "torch.distributions only draw from the global generator"
                raise ArgumentError("Flow.sample", "a generator", advice)
            if reference is not None:
                self._check((reference,) * len(self.bases))
            return tuple(draw_scaled(base, count, temperature) for base in self.bases)
        like = torch.empty(0) if reference is None else reference
        if generator is not None and generator.device.type != like.device.type:
            advice = f"the samples are drawn on {like.device}: use a generator on that device"
            raise ArgumentError("Flow.sample", f"a generator on {generator.device}", advice)
        drawn = [
            torch.randn(count, *shape, generator=generator, dtype=like.dtype, device=like.device)
            for shape in self.ports.shapes
        ]
        return tuple(drawn) if temperature == 1 else tuple([z * temperature for z in drawn])

    def require_rsample(self) -> None:
        """Refuse a base whose samples have no gradients."""
        for base in self.bases or ():
            if not base.has_rsample:
                advice = "its samples have no gradients: call sample, or use a base that has rsample"
                raise ArgumentError("Flow.rsample", f"a base {describe_base(base)} without rsample", advice)

    def describe(self) -> str:
        """Return the distributions and their shapes; an empty text for the standard normal."""
        if self.bases is None:
            return ""
        return f"base={', '.join(f'{describe_base(base)} {base_shape(base)}' for base in self.bases)}"

    def _check(self, zs: Tensors) -> None:
        """Raise InputTypeError if dtype or device of a base differ from those of the latents."""
        for index, (own, z) in enumerate(zip(self._tensors, zs, strict=True)):
            if own is not None and (own.dtype, own.device) != (z.dtype, z.device):
                advice = f"expected {z.dtype} on {z.device}: a base does not move with the flow, so build it there"
                raise InputTypeError("Flow", f"base {index}: {own.dtype} on {own.device}", advice)
