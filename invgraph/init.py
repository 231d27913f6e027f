"""Initialization of subnets: as the identity, with the normal weights of the paper, or with Xavier weights.

Built-in subnets have Xavier weights and a last layer of zeros, so that models start (nearly) as the identity. These
functions initialize them in other ways, or other subnets in this way. Random numbers come from a private generator with
the given seed, equal on every device; the global random state does not change.

Start values that layers take from a batch are set by ``graph.initialize``, in ``graph/initialize.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from invgraph.arguments import require_amount, require_flag, require_seed
from invgraph.core.subnet import Subnet
from invgraph.errors import ArgumentError, GraphError
from invgraph.numerics.seeding import generator, normal
from invgraph.torch_internals import WEIGHT_NORM


@torch.no_grad()
def identity(module: nn.Module) -> None:
    """Set the last layer of every subnet to zero, so that couplings start as the identity (paper, 3.4).

    If a subnet is not a built-in one, its last layer is the last submodule that has parameters. Of a weight under
    ``weight_norm``, the magnitude is set to zero.

    Arguments:
        module: Layer or graph; changed in place.

    Raises:
        GraphError: If the weight of a last layer is parametrized in a way that can't give zeros, as by
            ``spectral_norm``; nothing has changed.

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
    for parameter in _to_be_zero("init.identity", module):
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
    last = _to_be_zero(where, module) if require_flag(where, "zero_last", zero_last) else []
    for parameter in _parameters(where, module):
        parameter.copy_(normal(parameter.shape, source).to(parameter) * factor)
    _set_magnitudes(module)
    for parameter in last:
        parameter.zero_()


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
    last = _to_be_zero(where, module) if require_flag(where, "zero_last", zero_last) else []
    for parameter in _parameters(where, module):
        if parameter.ndim < 2:
            parameter.zero_()
            continue
        taps = math.prod(parameter.shape[2:])
        fans = (parameter.shape[0] + parameter.shape[1]) * taps
        parameter.copy_(normal(parameter.shape, source).to(parameter) * (factor * math.sqrt(2 / fans)))
    _set_magnitudes(module)
    for parameter in last:
        parameter.zero_()


_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


def _subnets(where: str, module: object) -> Iterator[Subnet]:
    if not isinstance(module, nn.Module):
        raise ArgumentError(where, type(module).__name__, "expected a layer or a graph that is already built")
    return (net for net in module.modules() if isinstance(net, Subnet))


def _parameters(where: str, module: object) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of the subnets, each once, except those of normalization layers."""
    seen: set[int] = set()
    for net in _subnets(where, module):
        for child in net.modules():
            for parameter in () if isinstance(child, _NORMS) else child.parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter


def _to_be_zero(where: str, module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are zero where every subnet's last layer is; refuse layers that never are."""
    last = [parameter for net in _subnets(where, module) for parameter in net.last_parameters()]
    never, directions = _never_zero(module), {id(direction) for _, direction in _weight_norms(module)}
    if any(id(parameter) in never for parameter in last):
        advice = "it can't be zero: use weight_norm, or no parametrization in the last layer"
        raise GraphError(where, "a last layer whose weight is normalized or parametrized", advice)
    return [parameter for parameter in last if id(parameter) not in directions]


def _weight_norms(module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over magnitude and direction of the weights under ``weight_norm``, of either kind that torch has."""
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        if isinstance(part, ParametrizationList) and _is_weight_norm(part):
            yield own["original0"], own["original1"]
        for name, direction in own.items():
            if name.endswith("_v") and f"{name[:-2]}_g" in own:
                yield own[f"{name[:-2]}_g"], direction


def _is_weight_norm(part: ParametrizationList) -> bool:
    return len(part) == 1 and type(part[0]) is WEIGHT_NORM


def _never_zero(module: nn.Module) -> set[int]:
    """Return the ids of parameters whose weights are not zero if they are, such as those divided by their norm."""
    found: set[int] = set()
    for part in module.modules():
        own, buffers = (dict(each(recurse=False)) for each in (part.named_parameters, part.named_buffers))
        if isinstance(part, ParametrizationList) and not _is_weight_norm(part) and not _can_be_zero(part):
            found.update(map(id, part.parameters()))
        found.update(id(value) for name, value in own.items() if f"{name.removesuffix('_orig')}_u" in buffers)
    return found


def _can_be_zero(part: ParametrizationList) -> bool:
    trial = copy.deepcopy(part).eval()
    for parameter in trial.parameters():
        parameter.zero_()
    return not bool(trial().any())  # NaN counts as true


def _set_magnitudes(module: nn.Module) -> None:
    """Let weights under ``weight_norm`` equal their directions, which have been drawn as weights."""
    for magnitude, direction in _weight_norms(module):
        axes = [axis for axis in range(magnitude.ndim) if magnitude.shape[axis] == 1]
        every = list(range(direction.ndim))
        norm = torch.linalg.vector_norm(direction, dim=axes if magnitude.ndim else every, keepdim=magnitude.ndim > 0)
        magnitude.copy_(norm)
