"""FrEIA's coupling blocks: their keys, their constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.errors import GraphError
from invgraph.freia.affine import (
    affine,
    as_clamp,
    clamped_log_slope,
    halves,
    require_channels,
    scale_and_shift,
    split_length,
)
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, require_subnet
from invgraph.fused import sequence
from invgraph.shapes import batched

__all__ = [
    "AffineCouplingOneSided",
    "ConditionalAffineTransform",
    "GINCouplingBlock",
    "GLOWCouplingBlock",
    "NICECouplingBlock",
    "RNVPCouplingBlock",
]


class _BaseCouplingBlock(OneInput):
    """A coupling of two sides; a subclass writes ``_coupling1`` and ``_coupling2``.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions, of the input's spatial size.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Channels of the first part: a number, or a fraction that is rounded (halves to even).
    """

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = (),
        clamp: float = 2.0,
        clamp_activation: Any = "ATAN",
        split_len: float = 0.5,
    ) -> None:
        super().__init__(dims_in, dims_c)
        where, shape = type(self).__name__, self.dims_in[0]
        self.channels = shape[0]
        self.ndims = len(shape)
        self.split_len1 = split_length(where, self.channels, split_len)
        self.split_len2 = self.channels - self.split_len1
        self.clamp = clamp
        for condition in self.dims_c:
            if tuple(condition[1:]) != tuple(shape[1:]):
                given = f"a condition of shape {batched(condition)} for an input of shape {batched(shape)}"
                raise GraphError(where, given, "dimensions of input and conditions don't agree after the channels")
        self.conditional = len(self.dims_c) > 0
        self.condition_length = sum(condition[0] for condition in self.dims_c)
        self.f_clamp = as_clamp(where, clamp_activation)

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Any]:
        first, second = torch.split_with_sizes(x[0], [self.split_len1, self.split_len2], dim=1)
        if rev:
            second, log_jac2 = self._coupling2(second, self._with_conditions(first, c), rev=True)
            first, log_jac1 = self._coupling1(first, self._with_conditions(second, c), rev=True)
        else:
            first, log_jac1 = self._coupling1(first, self._with_conditions(second, c))
            second, log_jac2 = self._coupling2(second, self._with_conditions(first, c))
        log_jac = log_jac1 + log_jac2
        if jac and isinstance(log_jac, float):
            log_jac = x[0].new_full((x[0].shape[0],), log_jac)
        return (torch.cat((first, second), dim=1),), log_jac

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Any]:
        """Transform the first part, given the second one with the conditions."""
        raise NotImplementedError(f"{type(self).__name__} does not provide _coupling1(x1, u2, rev=False)")

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Any]:
        """Transform the second part, given the first one with the conditions."""
        raise NotImplementedError(f"{type(self).__name__} does not provide _coupling2(x2, u1, rev=False)")

    def _with_conditions(self, x: Tensor, c: Sequence[Tensor]) -> Tensor:
        return torch.cat((x, *c), dim=1) if self.conditional else x

    def _affine(self, x: Tensor, params: Tensor, rev: bool) -> tuple[Tensor, Any]:
        """Scale and shift by what one subnet returned."""
        raw, shift = halves(params, x.shape[1], type(self).__name__)
        return affine(x, clamped_log_slope(self.clamp, self.f_clamp, raw, rev), shift, rev)


class NICECouplingBlock(_BaseCouplingBlock):
    """FrEIA's additive coupling, with the subnets ``F`` and ``G``.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        split_len: Channels of the first part: a number, or a fraction.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dims_c: Any = (), subnet_constructor: Any = None, split_len: float = 0.5) -> None:
        super().__init__(dims_in, dims_c, clamp=0.0, split_len=split_len)
        make = require_subnet(self, subnet_constructor)
        self.F = make(self.split_len2 + self.condition_length, self.split_len1)
        self.G = make(self.split_len1 + self.condition_length, self.split_len2)

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        return self._shift(x1, sequence.run(self.F, u2), rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, float]:
        return self._shift(x2, sequence.run(self.G, u1), rev)

    def _shift(self, x: Tensor, shift: Tensor, rev: bool) -> tuple[Tensor, float]:
        require_channels(shift, x.shape[1], type(self).__name__)
        return x - shift if rev else x + shift, 0.0


class _AffineCoupling(_BaseCouplingBlock):
    """A coupling with a clamped scale, whose subnets a subclass makes."""

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = (),
        subnet_constructor: Any = None,
        clamp: float = 2.0,
        clamp_activation: Any = "ATAN",
        split_len: float = 0.5,
    ) -> None:
        super().__init__(dims_in, dims_c, clamp, clamp_activation, split_len)
        self._make_subnets(require_subnet(self, subnet_constructor))

    def _make_subnets(self, make: Any) -> None:
        """Make the subnets, by the function of channels in and out that was given."""
        raise NotImplementedError(f"{type(self).__name__} does not make its subnets")


class RNVPCouplingBlock(_AffineCoupling):
    """FrEIA's affine coupling with four subnets, ``subnet_s1``, ``subnet_t1``, ``subnet_s2`` and ``subnet_t2``.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Channels of the first part: a number, or a fraction.
    """

    def _make_subnets(self, make: Any) -> None:
        first, second = self.split_len1 + self.condition_length, self.split_len2 + self.condition_length
        self.subnet_s1 = make(first, self.split_len2)
        self.subnet_t1 = make(first, self.split_len2)
        self.subnet_s2 = make(second, self.split_len1)
        self.subnet_t2 = make(second, self.split_len1)

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        scale, shift = (sequence.run(net, u2) for net in (self.subnet_s2, self.subnet_t2))
        return self._scale_and_shift(x1, scale, shift, rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        scale, shift = (sequence.run(net, u1) for net in (self.subnet_s1, self.subnet_t1))
        return self._scale_and_shift(x2, scale, shift, rev)

    def _scale_and_shift(self, x: Tensor, scale: Tensor, shift: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
        for params in (scale, shift):
            require_channels(params, x.shape[1], type(self).__name__)
        return affine(x, clamped_log_slope(self.clamp, self.f_clamp, scale, rev), shift, rev)


class _TwoSubnets(_AffineCoupling):
    """A coupling whose subnets ``subnet1`` and ``subnet2`` return scale and shift together."""

    def _make_subnets(self, make: Any) -> None:
        self.subnet1 = make(self.split_len1 + self.condition_length, self.split_len2 * 2)
        self.subnet2 = make(self.split_len2 + self.condition_length, self.split_len1 * 2)

    def _coupling1(self, x1: Tensor, u2: Tensor, rev: bool = False) -> tuple[Tensor, Any]:
        return self._affine(x1, sequence.run(self.subnet2, u2), rev)

    def _coupling2(self, x2: Tensor, u1: Tensor, rev: bool = False) -> tuple[Tensor, Any]:
        return self._affine(x2, sequence.run(self.subnet1, u1), rev)


class GLOWCouplingBlock(_TwoSubnets):
    """FrEIA's affine coupling with two subnets, ``subnet1`` and ``subnet2``.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Channels of the first part: a number, or a fraction.
    """


class GINCouplingBlock(_TwoSubnets):
    """FrEIA's volume-preserving coupling: the log scales of a position have mean zero over the channels.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Channels of the first part: a number, or a fraction.
    """

    preserves_volume = True

    def _affine(self, x: Tensor, params: Tensor, rev: bool) -> tuple[Tensor, Any]:
        raw, shift = halves(params, x.shape[1], type(self).__name__)
        log_slope = clamped_log_slope(self.clamp, self.f_clamp, raw, rev)
        return scale_and_shift(x, log_slope.sub_(log_slope.mean(1, keepdim=True)), shift, rev), 0.0


class AffineCouplingOneSided(_AffineCoupling):
    """FrEIA's affine coupling that transforms the second part alone, with the subnet ``subnet``.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Channels of the first part: a number, or a fraction.
    """

    def _make_subnets(self, make: Any) -> None:
        self.subnet = make(self.split_len1 + self.condition_length, 2 * self.split_len2)

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        first, second = torch.split_with_sizes(x[0], [self.split_len1, self.split_len2], dim=1)
        second, log_jac = self._affine(second, sequence.run(self.subnet, self._with_conditions(first, c)), rev)
        return (torch.cat((first, second), dim=1),), log_jac


class ConditionalAffineTransform(_AffineCoupling):
    """Scale and shift by what the subnet ``subnet`` makes of the conditions alone.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions; at least one.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        clamp: Bound of the log scale.
        clamp_activation: ``"ATAN"``, ``"TANH"``, ``"SIGMOID"``, or a function to (-1, 1).
        split_len: Not used.
    """

    def _make_subnets(self, make: Any) -> None:
        if not self.conditional:
            raise GraphError(type(self).__name__, "no conditions", "ConditionalAffineTransform must have a condition")
        self.subnet = make(self.condition_length, 2 * self.channels)

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        params = sequence.run(self.subnet, torch.cat(tuple(c), dim=1) if len(c) > 1 else c[0])
        y, log_jac = self._affine(x[0], params, rev)
        return (y,), log_jac
