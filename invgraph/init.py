"""How the subnets of a model start: as the identity, with the paper's normal weights, with Xavier's.

Layers are built with Xavier's weights and a last layer of zeros, so that models start as (nearly) the identity. These
functions set other starts, or this one for subnets of the user's own. Random numbers come from a generator with the
given seed, whatever the device; the global random state stays untouched.
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

    Of a subnet that is a plain module, the last layer is its last submodule that has parameters.

    Arguments:
        module: a layer or a graph; changed in place.

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
        module: a layer or a graph; changed in place.
        std: standard deviation: 0.03 in the paper's MNIST model, 0.01 and 0.02 in others.
        seed: of a generator of its own.
        zero_last: set the last layers to zero afterwards (:func:`identity`).

    Raises:
        GraphError: ``std`` is negative or not finite.
        ArgumentError: an argument has the wrong type.

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
    """Draw the weights of every subnet from Xavier's normal distribution, and set all biases to zero.

    A parameter with fewer than two axes counts as a bias. Norms keep their start.

    Arguments:
        module: a layer or a graph; changed in place.
        gain: factor on the standard deviation.
        seed: of a generator of its own.
        zero_last: set the last layers to zero afterwards (:func:`identity`).

    Raises:
        GraphError: ``gain`` is negative or not finite.
        ArgumentError: an argument has the wrong type.

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
        raise ArgumentError(where, type(module).__name__, "expected a layer or a graph, already built")
    return (net for net in module.modules() if isinstance(net, Subnet))


def _parameters(where: str, module: object) -> Iterator[nn.Parameter]:
    """Those that the subnets' linear layers and convolutions hold, each once; norms keep their start."""
    seen: set[int] = set()
    for net in _subnets(where, module):
        for child in net.modules():
            norm = isinstance(child, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm))
            for parameter in () if norm else child.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter
