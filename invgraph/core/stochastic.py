"""Random numbers for stochastic layers: functions of a seed, so that a call is repeatable until the seed changes."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn

from invgraph.arguments import require_seed
from invgraph.core.invertible import Invertible
from invgraph.errors import ArgumentError

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685  # splitmix64's, signed


class Stochastic(Invertible, ABC):
    """A layer that draws random numbers: from its seed and nothing else.

    A call is a function of its arguments, the parameters and the seed. So both directions, recomputation in a backward
    pass, and a second call see the same numbers, until :meth:`reseed` (or :func:`reseed` for a whole model) asks for
    others: once a training step. The seed is no part of a checkpoint.
    """

    seed: Tensor

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, seed: int = 0) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.register_buffer("seed", torch.tensor(_checked(type(self).__name__, seed)), persistent=False)

    def reseed(self, seed: int) -> None:
        """Draw other numbers from now on."""
        self.seed.fill_(_checked(self.label, seed))


def reseed(module: nn.Module, seed: int) -> None:
    """Give every stochastic layer of a model a new seed of its own.

    Arguments:
        module: a layer, a graph, or a module that holds some.
        seed: e.g. the number of the training step.

    Raises:
        ArgumentError: an argument has the wrong type.
        GraphError: the seed does not fit into 64 bits with its sign.

    Example:
        >>> import torch, invgraph as ig
        >>> layer, x = ig.Dequantize((2,), levels=8), torch.zeros(1, 2)
        >>> same = layer((x,))[0][0].equal(layer((x,))[0][0])
        >>> before = layer((x,))[0][0]
        >>> ig.reseed(layer, 1)
        >>> same, before.equal(layer((x,))[0][0])
        (True, False)
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("reseed", type(module).__name__, "expected a layer, a graph, or a module that holds some")
    _checked("reseed", seed)
    for place, layer in enumerate(m for m in module.modules() if isinstance(m, Stochastic)):
        layer.reseed((seed * 1_000_003 + place) % 2**62)


def _checked(where: str, seed: object) -> int:
    return require_seed(where, seed, bits=63)  # it is held by a tensor of int64


def uniform(seed: Tensor, like: Tensor, bits: int) -> Tensor:
    """Uniform numbers of the form ``(k + 1/2) / 2**bits``: never 0, never 1, exact in the dtype of ``like``."""
    high = (_hashed(seed, like) >> (63 - bits)) & (2**bits - 1)
    numbers: Tensor = (high.to(like.dtype) + 0.5) * 2.0**-bits
    return numbers


def signs(seed: Tensor, like: Tensor) -> Tensor:
    """-1 or 1 for each number, with equal probability."""
    bit = ((_hashed(seed, like) >> 62) & 1).to(like.dtype)
    return bit * 2 - 1


def normal(seed: Tensor, like: Tensor) -> Tensor:
    """Standard normal numbers."""
    bits = 51 if like.dtype == torch.float64 else 22 if like.dtype == torch.float32 else 7
    numbers: Tensor = torch.special.ndtri(uniform(seed, like, bits))
    return numbers


def _hashed(seed: Tensor, like: Tensor) -> Tensor:
    """64 bits for each number, from its place: row r gets the same, whatever the size of the batch."""
    count = like[:1].numel() if like.shape[0] else 1
    rows = torch.arange(like.shape[0], device=like.device).view(-1, *(1 for _ in like.shape[1:]))
    places = torch.arange(count, device=like.device).view(1, *like.shape[1:]) if like.shape[0] else rows
    return _mixed(_mixed(seed + _GOLDEN) + (rows * count + places + 1) * _GOLDEN)  # 0 is a fixed point of _mixed


def _mixed(z: Tensor) -> Tensor:
    """The finalizer of splitmix64; the masks make the shifts logical."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _FIRST
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _SECOND
    return z ^ ((z >> 31) & (2**33 - 1))
