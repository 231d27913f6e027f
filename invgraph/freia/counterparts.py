"""Correspondence of the tensors of native layers to those of FrEIA's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.core.subnet import Concatenated
from invgraph.core.wrappers import Inverse
from invgraph.errors import CheckpointError
from invgraph.freia import transforms
from invgraph.freia.contract import Contract
from invgraph.layers.actnorm import ActNorm
from invgraph.layers.concat import Concat
from invgraph.layers.coupling import Coupling
from invgraph.layers.elementwise import Elementwise
from invgraph.layers.haar import Haar
from invgraph.layers.permute import Permute
from invgraph.layers.reshape import Flatten, Reshape
from invgraph.layers.split import Split
from invgraph.layers.squeeze import Squeeze
from invgraph.shapes import Shape
from invgraph.transforms.additive import Additive


@dataclass(frozen=True)
class Counterpart:
    """Tensors of a layer of FrEIA, as those of a native layer.

    Attributes:
        names: Native name of each tensor of FrEIA's.
        constants: Shapes of tensors of FrEIA's that a native layer does not need.
        made: Native tensors that FrEIA does not save.
    """

    names: Mapping[str, str]
    constants: Mapping[str, Shape] = field(default_factory=dict)
    made: Mapping[str, Tensor] = field(default_factory=dict)

    def signature(self, layer: nn.Module) -> dict[str, Shape]:
        """Return names and shapes of FrEIA's tensors; per-channel ones have an axis for the batch in front."""
        state = layer.state_dict()
        shapes = {theirs: tuple(state[ours].shape) for theirs, ours in self.names.items()}
        if isinstance(layer, ActNorm):
            shapes = {name: (1, *shape) for name, shape in shapes.items()}
        return {**shapes, **self.constants}


def counterpart(name: str, layer: nn.Module) -> Counterpart:
    """Return the tensors of FrEIA's layer that computes what a native layer does.

    Arguments:
        name: Name of the layer's node, for errors.
        layer: Native layer, or a conditioning network.

    Raises:
        CheckpointError: If no layer of FrEIA's computes exactly that.
    """
    if not isinstance(layer, Invertible):
        return Counterpart({key: key for key in layer.state_dict()})
    find = _KINDS.get(type(layer))
    found = None if find is None else find(layer)
    if found is None:
        given = f"node {name!r}, {type(layer).__name__}({layer.extra_repr()})"
        raise CheckpointError("convert", given, _ADVICE.get(type(layer), _KEEP))
    return found


_KEEP = "no layer of FrEIA's computes exactly this: keep FrEIA's layer there, invgraph.freia.node(h, Fm.Module, {...})"
_ADVICE: dict[type, str] = {
    Coupling: "FrEIA's clamp differs from that of native transforms, and its one-sided couplings transform the second "
    "part: write transform=invgraph.freia.transforms.Affine(clamp=...), with sides=1 part=2, or keep FrEIA's layer, "
    "invgraph.freia.node(h, Fm.Module, {...})",
    Elementwise: "FrEIA's clamp differs: write transform=invgraph.freia.transforms.Affine(clamp=...) with a subnet",
}


def _contract(layer: Any) -> Counterpart:
    return Counterpart({key: f"module.{key}" for key in layer.module.state_dict()})


def _coupling(layer: Any) -> Counterpart | None:
    kind, count = type(layer.transform), len(layer.subnets[0])
    if [side.part for side in layer.sides] == [1] and kind is transforms.Affine and count == 1:
        return Counterpart(_subnet(layer.subnets[0][0], "subnet", "subnets.0.0"))
    names = _SUBNETS.get((kind, count))
    if names is None or [side.part for side in layer.sides] != [0, 1]:
        return None
    found: dict[str, str] = {}
    for side, nets in enumerate(names):
        for place, theirs in enumerate(nets):
            found.update(_subnet(layer.subnets[side][place], theirs, f"subnets.{side}.{place}"))
    return Counterpart(found)


_SUBNETS: dict[tuple[type, int], tuple[tuple[str, ...], tuple[str, ...]]] = {
    (transforms.Affine, 1): (("subnet2",), ("subnet1",)),
    (transforms.Affine, 2): (("subnet_s2", "subnet_t2"), ("subnet_s1", "subnet_t1")),
    (transforms.VolumePreserving, 1): (("subnet2",), ("subnet1",)),
    (Additive, 1): (("F",), ("G",)),
}
"""Names of FrEIA's subnets for the two sides, by the transform and the number of subnets of a side."""


def _subnet(net: nn.Module, theirs: str, ours: str) -> dict[str, str]:
    """Return the names of a subnet's tensors; ordinary modules are held by one that concatenates for them."""
    inner, ours = (net.module, f"{ours}.module") if isinstance(net, Concatenated) else (net, ours)
    return {f"{theirs}.{key}": f"{ours}.{key}" for key in inner.state_dict()}


def _elementwise(layer: Any) -> Counterpart | None:
    if type(layer.transform) is not transforms.Affine or layer.subnet is None:
        return None
    return Counterpart(_subnet(layer.subnet, "subnet", "subnet"))


def _permute(layer: Any) -> Counterpart:
    return Counterpart({"perm": "order", "perm_inv": "inverse_order"})


def _actnorm(layer: Any) -> Counterpart:
    return Counterpart({"scale": "log_scale", "bias": "shift"}, made={"initialized": torch.tensor(True)})


def _nothing(layer: Any) -> Counterpart:
    return Counterpart({})


def _haar(layer: Any) -> Counterpart | None:
    # A rebalance is not saved, and scales averages as well in FrEIA.
    return Counterpart({}, _kernel("haar_weights", layer)) if layer.rebalance == 1 else None


def _squeeze(layer: Any) -> Counterpart:
    return Counterpart({}, _kernel("downsample_kernel", layer))


def _kernel(name: str, layer: Any) -> dict[str, Shape]:
    return {name: (4 * layer.in_shapes[0][0], 1, 2, 2)}


def _inverse(layer: Any) -> Counterpart | None:
    return _KINDS[type(layer.module)](layer.module) if type(layer.module) in (Haar, Squeeze) else None


_KINDS: dict[type, Callable[[Any], Counterpart | None]] = {
    Contract: _contract,
    Coupling: _coupling,
    Elementwise: _elementwise,
    Permute: _permute,
    ActNorm: _actnorm,
    Flatten: _nothing,
    Reshape: _nothing,
    Split: _nothing,
    Concat: _nothing,
    Haar: _haar,
    Squeeze: _squeeze,
    Inverse: _inverse,
}
