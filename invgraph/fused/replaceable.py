"""Networks that a kernel may replace: exactly ``nn.Linear`` layers, with biases, and ReLU between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from invgraph.fused.descriptions import MLPParameters
from invgraph.torch_internals import PLAIN

_linear_forward = nn.Linear.forward  # to notice if somebody patches it

Linears = tuple[Iterable[nn.Module], Iterable[nn.Module]]
"""The linear layers of a network, in order, and those that read the conditions."""

_readers: dict[type[nn.Module], Callable[[nn.Module], Linears]] = {}


def register(kind: type[nn.Module], linears: Callable[[nn.Module], Linears]) -> None:
    """Let the kernel stand in for networks of a class.

    Arguments:
        kind: The class: linear layers with ReLU between them, the first of which also reads the conditions.
        linears: Returns the linear layers of such a network.
    """
    _readers[kind] = linears


def as_mlp(network: nn.Module) -> MLPParameters | None:
    """Return the parameters of a network; None unless every layer of it is exactly an ``nn.Linear`` with a bias.

    Hooks and patched instances are not looked for here: :class:`~invgraph.torch_internals.Snapshot` does that.
    """
    reader = _readers.get(type(network))
    if reader is None or nn.Linear.forward is not _linear_forward:
        return None
    layers, readers = (list(part) for part in reader(network))
    if any(type(layer) is not nn.Linear for layer in (*layers, *readers)):
        return None
    stores = [dict(layer.named_parameters()) for layer in layers]  # empty in data-parallel replicas
    weights, biases = tuple([own.get("weight") for own in stores]), tuple([own.get("bias") for own in stores])
    condition_weights = tuple([dict(layer.named_parameters()).get("weight") for layer in readers])
    if any(layer.bias is not None for layer in readers):
        return None
    if any(type(tensor) not in PLAIN for tensor in (*weights, *biases, *condition_weights)):  # None is a missing bias
        return None
    return MLPParameters(weights, biases, condition_weights)  # type: ignore[arg-type]
