"""Random values for stochastic layers, as functions of a seed: a call is repeatable until the seed changes."""

from __future__ import annotations

import math
from abc import ABC

import torch
from torch import Tensor, nn

from invgraph.arguments import require_seed
from invgraph.core.constants import WithConstants
from invgraph.core.invertible import Invertible
from invgraph.errors import ArgumentError

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685  # splitmix64's, signed


class Stochastic(WithConstants, Invertible, ABC):
    """Base class of layers that draw random values, from their seed only.

    A call is a function of its arguments, the parameters and the seed. Hence both directions, recomputation in a
    backward pass, and repeated calls use the same random values until :meth:`reseed` is called (or :func:`reseed` for a
    whole model), usually once per training step. The seed is not saved in checkpoints.

    Arguments:
        in_shapes: Shapes of the inputs, without the batch.
        cond_shapes: Shapes of the conditions, without the batch.
        seed: Initial seed, an int that fits into an int64. Default: 0.
    """

    seed: Tensor

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, seed: int = 0) -> None:
        super().__init__(in_shapes, cond_shapes)
        self._seed = _require_seed(type(self).__name__, seed)
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        return {"seed": torch.tensor(self._seed, device="cpu")}

    def reseed(self, seed: int) -> None:
        """Set the seed, so that subsequent calls draw different random values."""
        self._seed = _require_seed(self.label, seed)
        self.seed.fill_(self._seed)


def reseed(module: nn.Module, seed: int) -> None:
    """Set new, distinct seeds in all stochastic layers of a model.

    Arguments:
        module: A layer, a graph, or a module that contains some.
        seed: Seed from which those of the layers are derived, e.g. the number of the training step.

    Raises:
        ArgumentError: An argument has the wrong type.
        GraphError: The seed does not fit into an int64.

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
        raise ArgumentError("reseed", type(module).__name__, "expected a layer, a graph, or a module of such layers")
    _require_seed("reseed", seed)
    for place, layer in enumerate(m for m in module.modules() if isinstance(m, Stochastic)):
        layer.reseed((seed * 1_000_003 + place) % 2**62)


def _require_seed(where: str, seed: object) -> int:
    return require_seed(where, seed, bits=63)  # the buffer that holds it is an int64


def uniform(seed: Tensor, like: Tensor, bits: int) -> Tensor:
    """Draw uniform values of the form ``(k + 1/2) / 2**bits``: never 0 or 1, and exact in the dtype of ``like``.

    Arguments:
        seed: Seed, an int64 tensor of shape ``()``.
        like: Tensor whose shape, dtype and device the result has.
        bits: Number of random bits per value; ``bits + 1`` must fit into the mantissa.
    """
    high = (_hash(seed, like) >> (63 - bits)) & (2**bits - 1)
    values: Tensor = (high.to(like.dtype) + 0.5) * 2.0**-bits
    return values


def signs(seed: Tensor, like: Tensor) -> Tensor:
    """Draw -1 or 1 with equal probability; the result has the shape, dtype and device of ``like``."""
    bit = ((_hash(seed, like) >> 62) & 1).to(like.dtype)
    return bit * 2 - 1


def normal(seed: Tensor, like: Tensor) -> Tensor:
    """Draw standard normal values; the result has the shape, dtype and device of ``like``."""
    bits = 51 if like.dtype == torch.float64 else 22 if like.dtype == torch.float32 else 7
    values: Tensor = torch.special.ndtri(uniform(seed, like, bits))
    return values


def _hash(seed: Tensor, like: Tensor) -> Tensor:
    """Return 64 random bits per element, from the seed and the position; a row does not depend on the batch size."""
    count = math.prod(like.shape[1:])
    rows = torch.arange(like.shape[0], device=like.device).view(-1, *(1 for _ in like.shape[1:]))
    places = torch.arange(count, device=like.device).view(1, *like.shape[1:])
    return _mix(_mix(seed + _GOLDEN) + (rows * count + places + 1) * _GOLDEN)  # 0 is a fixed point of _mix


def _mix(z: Tensor) -> Tensor:
    """Apply the finalizer of splitmix64; the masks make the shifts logical."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _FIRST
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _SECOND
    return z ^ ((z >> 31) & (2**33 - 1))
