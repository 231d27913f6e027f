"""Random values of stochastic layers, as functions of a seed: new at each call in training, fixed in evaluation."""

from __future__ import annotations

import math
import threading
from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag, require_seed
from invgraph.core.constants import WithConstants
from invgraph.core.invertible import Invertible
from invgraph.errors import ArgumentError

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685  # splitmix64's, signed


class Stochastic(WithConstants, Invertible, ABC):
    """Base class of layers that draw random values, all of them from one seed per call.

    In ``train()`` mode each call draws its seed from torch's global generator, as dropout draws its mask: the seed set
    by the script decides, activation checkpointing draws the same again, and :func:`~invgraph.reversible` keeps
    the seeds of a call for its backward pass. In ``eval()`` mode, and always with ``fixed_noise``, a call is a function
    of its arguments, the parameters and :attr:`seed`, which stays the same until :meth:`reseed` (or :func:`reseed` for
    a whole model). The seed is not saved in checkpoints.

    Arguments:
        in_shapes: Shapes of the inputs, without the batch.
        cond_shapes: Shapes of the conditions, without the batch.
        seed: Initial seed, an int that fits into an int64. Default: 0.
        fixed_noise: True to use :attr:`seed` in ``train()`` mode as well. Default: False.

    Attributes:
        seed: Seed of calls in evaluation mode.
        fixed_noise: True if calls in training mode use it too.
    """

    seed: Tensor

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, seed: int = 0, fixed_noise: bool = False
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        self._seed = _require_seed(type(self).__name__, seed)
        self.fixed_noise = require_flag(type(self).__name__, "fixed_noise", fixed_noise)
        self._register_constants()

    def _draws(self) -> bool:
        return not self.fixed_noise

    def noise_seed(self, like: Tensor) -> Tensor:
        """Return the seed of a call, an int64 tensor of shape ``()``: a new one in training, else that of the layer.

        Arguments:
            like: Tensor on the device of the call.
        """
        kept = None if _kept.seeds is None else _kept.seeds.get(id(self))
        return self._next_seed(like) if kept is None else kept

    def _next_seed(self, like: Tensor) -> Tensor:
        if not (self.training and self._draws()):
            return self.seed
        # Not by randint: what inductor (torch 2.13) makes of it is the same at each call.
        low, high = (torch.rand(2, dtype=torch.float32, device=like.device) * 2**24).long().unbind()
        return high * 2**24 + low

    def _constants(self) -> dict[str, Tensor]:
        return {"seed": torch.tensor(self._seed, device="cpu")}

    def reseed(self, seed: int) -> None:
        """Set the seed, so that subsequent calls draw different random values."""
        self._seed = _require_seed(self.label, seed)
        self.seed.fill_(self._seed)


Seeds: TypeAlias = dict[int, Tensor]
"""Seeds of the calls of stochastic layers, by the id of the layer."""


class _Kept(threading.local):
    seeds: Seeds | None = None
    first = False


_kept = _Kept()


def draw_seeds(module: nn.Module, like: Tensor) -> Seeds:
    """Return a seed for a call of each stochastic layer of a module, for :func:`same_noise`.

    Inside a run with kept seeds, such as the second one of a node that is itself reversible, these are returned.
    """
    layers = [part for part in module.modules() if isinstance(part, Stochastic)]
    return {id(layer): layer.noise_seed(like).clone() for layer in layers}


@contextmanager
def same_noise(seeds: Seeds, *, first: bool = False) -> Iterator[None]:
    """Within the context, in this thread, let the calls of a layer use its seed among these.

    Arguments:
        seeds: The seeds.
        first: True in the pass whose values are rebuilt later, under the same seeds.
    """
    before = _kept.seeds, _kept.first
    _kept.seeds, _kept.first = seeds, first
    try:
        yield
    finally:
        _kept.seeds, _kept.first = before


def is_first_pass() -> bool:
    """True in a pass whose values are rebuilt later, from its results."""
    return _kept.first


def reseed(module: nn.Module, seed: int) -> None:
    """Set new, distinct seeds of evaluation mode in all stochastic layers of a model.

    In training mode, layers draw their seeds from torch's global generator at each call, unless they were built with
    ``fixed_noise=True``; then call this once per training step.

    Arguments:
        module: A layer, a graph, or a module that contains some.
        seed: Seed from which those of the layers are derived, e.g. the number of the training step.

    Raises:
        ArgumentError: If an argument has the wrong type.
        GraphError: If the seed does not fit into an int64.

    Example:
        >>> import torch, invgraph as ig
        >>> layer, x = ig.Dequantize((2,), levels=8).eval(), torch.zeros(1, 2)
        >>> same = layer((x,))[0][0].equal(layer((x,))[0][0])
        >>> before = layer((x,))[0][0]
        >>> ig.reseed(layer, 1)
        >>> same, before.equal(layer((x,))[0][0])
        (True, False)
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("reseed", type(module).__name__, "expected a layer, a graph, or a module of such layers")
    seed = _require_seed("reseed", seed)
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
    drawn = uniform(seed, like, bits)
    wide = drawn.to(torch.promote_types(drawn.dtype, torch.float32))  # torch has no ndtri for half precision
    values: Tensor = torch.special.ndtri(wide).to(like.dtype)
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
