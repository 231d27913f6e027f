"""Masked fully connected network of autoregressive layers: the outputs for an element see only those before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invgraph.core.constants import WithConstants
from invgraph.core.given import add_rows
from invgraph.core.subnet import Subnet
from invgraph.errors import GraphError
from invgraph.fused.affine_autoregressive import AffineAutoregressive
from invgraph.fused.descriptions import AffineMap
from invgraph.fused.in_place import is_overwritable
from invgraph.fused.masked_mlp import MaskedLayers, stairs
from invgraph.fused.switch import fused
from invgraph.shapes import Tensors
from invgraph.torch_internals import PLAIN, is_plain, is_transformed, is_untouched

Degrees: TypeAlias = tuple[int, ...]
"""For each unit, the number of inputs that it sees."""


# A checkpoint is compared by the names of classes: these two must stay as they are.
class Linear(WithConstants, nn.Linear):
    """Linear layer with some of its weights masked out.

    Arguments:
        before: Degree of each input.
        after: Degree of each output, which sees the inputs of at most its own degree.
    """

    mask: Tensor

    def __init__(self, before: Degrees, after: Degrees) -> None:
        super().__init__(len(before), len(after))
        self.degrees = before, after
        self._register_constants()

    def _constants(self) -> dict[str, Tensor]:
        return {"mask": _mask(*self.degrees)}

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)

    def rows(self, x: Tensor, places: slice, groups: int) -> Tensor:
        """Compute only some outputs, the same ones of each of ``groups`` equal groups."""
        whole = (self.weight, self.mask, self.bias)
        weight, mask, bias = (torch.unflatten(part, 0, (groups, -1))[:, places].flatten(0, 1) for part in whole)
        return linear(x, weight * mask, bias)


class _Masked(WithConstants, Subnet):
    """MADE: fully connected layers with ReLU, masked so that the outputs for element i see only the inputs before i.

    A hidden unit of degree d sees the first d inputs; degree 0 sees only the conditions. The degrees are spread evenly.
    However few units there are, the last one sees every input that any output may see.
    """

    broadcasts = True
    _fused: MaskedLayers | None = None

    def __init__(self, size: int, cond_size: int, hidden: tuple[int, ...], params_per_element: int) -> None:
        super().__init__()
        self.size, self.params_per_element = size, params_per_element
        lowest = 0 if cond_size else 1
        hidden_degrees = [_degrees(lowest, size, width) for width in hidden]
        degrees = [tuple(range(1, size + 1)), *hidden_degrees, tuple(range(size)) * params_per_element]
        self.pairs = tuple(pairwise(degrees))
        self.stairs = tuple(stairs(before, after) for before, after in self.pairs)
        self.edges = tuple(tuple(bisect_left(units, p) for p in range(size + 1)) for units in degrees[:-1])
        self.layers = nn.ModuleList(Linear(before, after) for before, after in self.pairs)
        self.condition = nn.Linear(cond_size, hidden[0], bias=False) if cond_size else None
        self._register_constants()
        for layer in (*self.layers, *([self.condition] if self.condition else [])):
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
        for layer in self.layers[:-1]:  # with biases of zero, the kinks of all units would meet in one point
            edge = cast(nn.Linear, layer).in_features ** -0.5
            nn.init.uniform_(cast(nn.Linear, layer).bias, -edge, edge)
        last = cast(nn.Linear, self.layers[-1])
        nn.init.zeros_(last.bias)
        nn.init.zeros_(last.weight)  # start at the identity

    def _constants(self) -> dict[str, Tensor]:
        """Return the masks, which are needed where an adapter wraps a layer: see ``_call``."""
        return {f"mask_{index}": _mask(before, after) for index, (before, after) in enumerate(self.pairs)}

    def precompute(self, cs: Tensors) -> Tensors:
        if self.condition is None:
            return ()
        return (self.condition(cs[0].flatten(1) if len(cs) == 1 else torch.cat([c.flatten(1) for c in cs], dim=1)),)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        fused_layers = self._fused_layers(x, given)
        if fused_layers is None:
            return self._call(len(self.layers) - 1, self._hidden(x, given))
        return fused_layers.kernel.run(x, (*fused_layers.tensors, *given))

    def _fused_layers(self, x: Tensor, others: Tensors) -> MaskedLayers | None:
        """Return the layers as a kernel; None where it would not give what the layers give."""
        if not (is_plain(x) and fused.enabled):
            return None
        found = self._fused
        if found is None or not found.is_current(self.layers):
            found = self._fused = self._kept_layers(self.layers)
        if found is None:
            return None
        for other in others:
            if type(other) not in PLAIN:
                return None
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy or pickle: without what is kept to be quick."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_fused"}

    def affine_kernel(self, transform: AffineMap) -> AffineAutoregressive | None:
        """Return a whole affine layer as one kernel; None where it would not give what the modules do."""
        layers = self._kept_layers(self) if is_untouched(self, _network_forward) else None
        if layers is None or self.condition is None:
            return None if layers is None else AffineAutoregressive(layers, transform)
        condition: Any = self.condition  # another layer may have taken its place, with a bias
        if not is_overwritable(condition) or condition.bias is not None or type(condition.weight) is not nn.Parameter:
            return None
        return AffineAutoregressive(layers, transform, condition.weight)

    def _kept_layers(self, root: nn.Module) -> MaskedLayers | None:
        """Return the layers as a kernel to keep while ``root`` stays as it is; None if it can't be kept.

        A tensor that is not a parameter, as in FSDP or a functional call, may be another one at the next call. Besides,
        distributed tensors can't be asked to convert a mask.
        """
        layers = self._plain_layers()
        if layers is None or any(type(layer.mask) not in PLAIN for layer in layers):
            return None
        if any(type(tensor) is not nn.Parameter for layer in layers for tensor in (layer.weight, layer.bias)):
            return None
        return MaskedLayers(root, self.layers, self.stairs)

    def part(self, x: Tensor, given: Tensors, places: slice) -> Tensor:
        """Return the outputs of :meth:`combine` for some elements, ``(B, params_per_element * len(places))``."""
        h, last = self._hidden(x, given), self.layers[-1]
        if type(last) is Linear and is_untouched(last, _masked_forward):
            return last.rows(h, places, self.params_per_element)
        outputs: Tensor = self._call(len(self.layers) - 1, h)
        part: Tensor = torch.unflatten(outputs, 1, (self.params_per_element, -1))[:, :, places].flatten(1)
        return part

    def tensors(self, given: Tensors) -> Tensors | None:
        """Return the masked weights, the biases, and what is given; None if something else stands for a layer."""
        layers = self._plain_layers()
        if layers is None:
            return None
        return *[layer.weight * layer.mask for layer in layers], *[layer.bias for layer in layers], *given

    def _plain_layers(self) -> list[Linear] | None:
        """Return the layers; None if something else stands for one of them, or is called along with it."""
        layers = [layer for layer in self.layers if type(layer) is Linear and is_untouched(layer, _masked_forward)]
        return layers if len(layers) == len(self.layers) else None

    def _hidden(self, x: Tensor, given: Tensors) -> Tensor:
        h = self._call(0, x)
        h = add_rows(h, given[0]) if given else h
        for index in range(1, len(self.layers) - 1):
            h = self._call(index, torch.relu(h))
        return torch.relu(h)

    def _call(self, index: int, x: Tensor) -> Tensor:
        """Call a layer; mask the linear map of whatever has taken its place, such as a LoRA adapter."""
        layer = self.layers[index]
        if type(layer).forward is _masked_forward and "forward" not in vars(layer):
            return layer(x)  # type: ignore[no-any-return]
        mask = self.get_buffer(f"mask_{index}")
        inputs = mask.shape[1]
        columns = layer(torch.eye(inputs + 1, inputs, dtype=x.dtype, device=x.device))  # the last row is zero
        weight, bias = (columns[:-1] - columns[-1]).t(), columns[-1]
        if not (torch.compiler.is_compiling() or is_transformed() or x.is_meta):
            _require_linear(layer, weight, bias, x)
        return linear(x, weight * mask, bias)


_masked_forward, _network_forward = Linear.forward, _Masked.forward


class Stepwise:
    """Outputs of a masked network place by place; a unit is evaluated once, when the last input that it sees is known.

    Arguments:
        edges: For each layer of units, inputs first: the number of units of a degree below p, for p from 0 to D.
        params_per_element: Number of outputs per element.
        tensors: Masked weights, biases, and the conditions' contribution to the first layer, if there is one.
    """

    def __init__(self, edges: Sequence[Sequence[int]], params_per_element: int, tensors: Tensors) -> None:
        layers = len(edges)
        self.edges, self.weights, self.biases = edges, list(tensors[:layers]), list(tensors[layers : 2 * layers])
        self.given = tensors[2 * layers :]
        by_place = [
            torch.unflatten(last, 0, (params_per_element, -1)) for last in (self.weights.pop(), self.biases.pop())
        ]
        self.last_weight, self.last_bias = by_place
        self.units: list[Tensor] = []

    def params(self, x: Tensor) -> Tensor:
        """Return the parameters ``(B, params_per_element, 1)`` of a place, from the elements before it."""
        place = x.shape[1]
        self.units = self.units or [x[:, :0]] * len(self.weights)
        before = x
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            own = slice(self.units[layer].shape[1], self.edges[layer + 1][place + 1])
            if own.stop > own.start:
                new = linear(before, weight[own, : before.shape[1]], bias[own])
                for part in self.given if layer == 0 else ():
                    new = add_rows(new, part[:, own])
                self.units[layer] = torch.cat((self.units[layer], torch.relu(new)), dim=1)
            before = self.units[layer]
        params = linear(before, self.last_weight[:, place, : before.shape[1]], self.last_bias[:, place])
        return params.unsqueeze(2)


@torch.no_grad()
def _require_linear(layer: nn.Module, weight: Tensor, bias: Tensor, like: Tensor) -> None:
    """Refuse a layer that is not the linear map with this weight and bias: there is no weight to be masked."""
    signs = 1 - 2 * (torch.arange(weight.shape[1], device=like.device) % 2)
    probe = torch.stack((8 * signs, -8 * signs)).to(like.dtype)  # large, so that activations bend
    exact = probe @ weight.to(probe).t() + bias.to(probe)
    error = (layer(probe).to(probe) - exact).abs().max()
    if bool(error > 0.05 * exact.abs().max() + 1e-3):
        advice = "a masked layer must be linear: give it no activation, and set dropout to 0 or call .eval()"
        raise GraphError("Autoregressive", f"a {type(layer).__name__} in place of a linear layer", advice)


def _mask(before: Degrees, after: Degrees) -> Tensor:
    """Return 1 for the weights of a layer that are used and 0 for the others, shape ``(out, in)``.

    ``AveragedModel(use_buffers=True)`` subtracts buffers, which torch does not do with booleans.
    """
    return (torch.tensor(after, device="cpu")[:, None] >= torch.tensor(before, device="cpu")).to(torch.uint8)


def _degrees(lowest: int, size: int, width: int) -> Degrees:
    """Return the degrees of a layer's units, from ``lowest`` to ``size - 1`` inclusive."""
    if width >= size - lowest:
        return tuple(lowest + unit * (size - lowest) // width for unit in range(width))
    return tuple(lowest + unit * (size - 1 - lowest) // (width - 1) for unit in range(width))
