"""Initialization of subnets: as the identity, with the normal weights of the paper, or with Xavier weights.

Built-in subnets have Xavier weights and a last layer of zeros, so that models start (nearly) as the identity. These
functions initialize them in other ways, or other subnets in this way. Random numbers come from a private generator with
the given seed, equal on every device; the global random state does not change.

Start values that layers take from a batch are set by ``graph.initialize``, in ``graph/initialize.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from invgraph.arguments import require_amount, require_flag, require_seed
from invgraph.core.subnet import Subnet
from invgraph.errors import ArgumentError
from invgraph.numerics.seeding import generator, normal


@torch.no_grad()
def identity(module: nn.Module) -> None:
    """Set the last layer of every subnet to zero, so that couplings start as the identity (paper, 3.4).

    If a subnet is not a built-in one, its last layer is the last submodule that has parameters.

    Arguments:
        module: Layer or graph; changed in place.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> from torch import nn
        >>> def subnet(channels_in, channels_out):
        ...     return nn.Sequential(nn.Linear(channels_in, 8), nn.ReLU(), nn.Linear(8, channels_out))
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=subnet)
        >>> ig.init.identity(layer)
        >>> x = torch.ones(1, 4)
        >>> layer((x,))[0][0].equal(x)
        True
    """
    for net in _subnets("init.identity", module):
        for parameter in net.last_parameters():
            parameter.zero_()


@torch.no_grad()
def scaled_normal(module: nn.Module, std: float = 0.03, *, seed: int = 0, zero_last: bool = True) -> None:
    """Draw every parameter of every subnet from a normal distribution, as the paper's published code does.

    Arguments:
        module: Layer or graph; changed in place.
        std: Standard deviation. The MNIST model of the paper uses 0.03 (default), other models 0.01 and 0.02.
        seed: Seed of the private generator. Default: 0.
        zero_last: If True (default), set the last layers to zero afterwards (:func:`identity`).

    Raises:
        GraphError: If ``std`` is negative or not finite, or the seed does not fit into 64 bits.
        ArgumentError: If an argument has the wrong type.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392

    Example:
        >>> import invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> ig.init.scaled_normal(layer, std=0.03)
    """
    where = "init.scaled_normal"
    factor = require_amount(where, "std", std)
    source = generator(require_seed(where, seed))
    zero_last = require_flag(where, "zero_last", zero_last)
    for parameter in _parameters(where, module):
        parameter.copy_(normal(parameter.shape, source).to(parameter) * factor)
    if zero_last:
        identity(module)


@torch.no_grad()
def xavier(module: nn.Module, gain: float = 1.0, *, seed: int = 0, zero_last: bool = True) -> None:
    """Draw the weights of every subnet from the Xavier normal distribution, and set all biases to zero.

    A parameter with fewer than two axes counts as a bias. Normalization layers do not change.

    Arguments:
        module: Layer or graph; changed in place.
        gain: Factor that scales the standard deviation. Default: 1.
        seed: Seed of the private generator. Default: 0.
        zero_last: If True (default), set the last layers to zero afterwards (:func:`identity`).

    Raises:
        GraphError: If ``gain`` is negative or not finite, or the seed does not fit into 64 bits.
        ArgumentError: If an argument has the wrong type.

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010,
        https://proceedings.mlr.press/v9/glorot10a.html

    Example:
        >>> import invgraph as ig
        >>> layer = ig.Coupling((4,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=8))
        >>> ig.init.xavier(layer, seed=1)
    """
    where = "init.xavier"
    factor = require_amount(where, "gain", gain)
    source = generator(require_seed(where, seed))
    zero_last = require_flag(where, "zero_last", zero_last)
    for parameter in _parameters(where, module):
        if parameter.ndim < 2:
            parameter.zero_()
            continue
        taps = math.prod(parameter.shape[2:])
        fans = (parameter.shape[0] + parameter.shape[1]) * taps
        parameter.copy_(normal(parameter.shape, source).to(parameter) * (factor * math.sqrt(2 / fans)))
    if zero_last:
        identity(module)


def _subnets(where: str, module: object) -> Iterator[Subnet]:
    if not isinstance(module, nn.Module):
        raise ArgumentError(where, type(module).__name__, "expected a layer or a graph that is already built")
    return (net for net in module.modules() if isinstance(net, Subnet))


def _parameters(where: str, module: object) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of the subnets, each once, except those of normalization layers."""
    seen: set[int] = set()
    for net in _subnets(where, module):
        for child in net.modules():
            norm = isinstance(child, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm))
            for parameter in () if norm else child.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter
