"""Things that people put on linear layers and convolutions, each with the weights that it amounts to."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

Layer = Any  # nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d
Merged = Callable[[], tuple[Tensor, Tensor | None]]
"""The weight and the bias of the plain layer that gives the same."""

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Place(NamedTuple):
    """A linear layer or convolution, its parent, and its name there."""

    parent: nn.Module
    name: str
    layer: Layer

    def replace(self, layer: nn.Module) -> None:
        self.parent._modules[self.name] = layer


def places(root: nn.Module) -> list[Place]:
    """Every linear layer and convolution of a module."""
    return [
        Place(parent, name, child)
        for parent in root.modules()
        for name, child in parent.named_children()
        if isinstance(child, KINDS)
    ]


def apply(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer's operation, with another weight."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[weight.ndim]
    return convolve(x, weight, bias, padding=layer.padding)


def noise(layer: Layer, *shape: int) -> nn.Parameter:
    """A parameter like the layer's, the same in every run."""
    generator = torch.Generator().manual_seed(sum(layer.weight.shape) + len(shape))
    return nn.Parameter(0.3 * torch.randn(shape, generator=generator, dtype=layer.weight.dtype))


def values(layer: Layer) -> tuple[Tensor, Tensor | None]:
    return layer.weight.detach().clone(), None if layer.bias is None else layer.bias.detach().clone()


def low_rank(layer: Layer) -> tuple[nn.Parameter, nn.Parameter]:
    return noise(layer, layer.weight.shape[0], 1), noise(layer, 1, layer.weight[0].numel())


class Lora(nn.Module):
    """A low-rank change round a layer."""

    def __init__(self, base: Layer) -> None:
        super().__init__()
        self.base = base
        self.up, self.down = low_rank(base)

    def delta(self) -> Tensor:
        return (self.up @ self.down).view_as(self.base.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + apply(self.base, x, self.delta())


def lora_subclass(base: type[nn.Module]) -> type[nn.Module]:
    """A low-rank change as a subclass of torch's own layer."""

    def delta(self: Any) -> Tensor:
        return (self.up @ self.down).view_as(self.weight)

    def forward(self: Any, x: Tensor) -> Tensor:
        return base.forward(self, x) + apply(self, x, self.delta())

    return type(f"Lora{base.__name__}", (base,), {"delta": delta, "forward": forward})


LORA = {kind: lora_subclass(kind) for kind in KINDS}


def torch_kind(layer: Layer) -> type[nn.Module]:
    return next(kind for kind in KINDS if isinstance(layer, kind))


class Int8(nn.Module):
    """A layer with weights of eight bits, as weight-only quantization leaves it."""

    weight: Tensor
    scale: Tensor

    def __init__(self, base: Layer) -> None:
        super().__init__()
        weight = base.weight.detach()
        scale = weight.abs().amax() / 127
        self.base = [base]  # its kind and padding; not a part
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = base.bias

    def wide(self) -> Tensor:
        return self.weight.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return apply(self.base[0], x, self.wide(), self.bias)


class Squashed(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return torch.tanh(2 * weight)


@dataclass
class Watch:
    """Record of a hook: the layer, its input and its output, as they were and as they are."""

    seen: list[tuple[Layer, Tensor, Tensor, Tensor]]
    calls: int = 0

    def note(self, layer: Layer, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls += 1
        self.seen.append((layer, arguments[0], output, output.detach().clone()))

    def count(self, *_: object) -> None:
        self.calls += 1


def scaled(place: Place, factor: float, bias_factor: float) -> Merged:
    weight, bias = values(place.layer)
    return lambda: (weight * factor, None if bias is None else bias * bias_factor)


def same(place: Place) -> Merged:
    return scaled(place, 1, 1)


def observe(place: Place, watch: Watch) -> Merged:
    place.layer.register_forward_hook(watch.note)
    return same(place)


def change_input(place: Place, watch: Watch) -> Merged:
    def halve(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        watch.count()
        return (arguments[0] * 0.5, *arguments[1:])

    place.layer.register_forward_pre_hook(halve)
    return scaled(place, 0.5, 1)


def change_output(place: Place, watch: Watch) -> Merged:
    def widen(_: nn.Module, arguments: object, output: Tensor) -> Tensor:
        watch.count()
        return output * 1.5

    place.layer.register_forward_hook(widen)
    return scaled(place, 1.5, 1.5)


def change_gradient(place: Place, watch: Watch) -> Merged:
    def widen(_: nn.Module, input_grads: Any, output_grads: object) -> Any:
        watch.count()
        return tuple(None if grad is None else grad * 1.5 for grad in input_grads)

    place.layer.register_full_backward_hook(widen)
    return same(place)


def change_output_gradient(place: Place, watch: Watch) -> Merged:
    def widen(_: nn.Module, output_grads: Any) -> Any:
        watch.count()
        return tuple(None if grad is None else grad * 1.5 for grad in output_grads)

    place.layer.register_full_backward_pre_hook(widen)
    return same(place)


def wrap_lora(place: Place, watch: Watch) -> Merged:
    lora = Lora(place.layer)
    place.replace(lora)
    return lambda: (lora.base.weight + lora.delta(), lora.base.bias)


def put_lora(place: Place, watch: Watch) -> Merged:
    kind, old = torch_kind(place.layer), place.layer
    new = LORA[kind].__new__(LORA[kind])
    nn.Module.__init__(new)
    new.__dict__.update({k: v for k, v in old.__dict__.items() if not k.startswith("_") or "padding" in k})
    new.weight, new.bias = old.weight, old.bias
    new.up, new.down = low_rank(old)
    place.replace(new)
    return lambda: (new.weight + new.delta(), new.bias)


def become_lora(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    layer.up, layer.down = low_rank(layer)
    layer.__class__ = LORA[torch_kind(layer)]
    return lambda: (layer.weight + layer.delta(), layer.bias)


def old_weight_norm(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(1.5)
    return lambda: (normed(layer.weight_v) * layer.weight_g, layer.bias)


def new_weight_norm(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    parametrizations.weight_norm(layer)
    own = layer.parametrizations.weight
    with torch.no_grad():
        own.original0.mul_(1.5)
    return lambda: (normed(own.original1) * own.original0, layer.bias)


def normed(weight: Tensor) -> Tensor:
    return weight / weight.flatten(1).norm(dim=1).view(-1, *(1,) * (weight.ndim - 1))


def old_spectral_norm(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.spectral_norm(layer)
    left, _, right = torch.linalg.svd(layer.weight_orig.detach().flatten(1), full_matrices=False)
    layer.weight_u.copy_(left[:, 0])  # as after many calls in training: a random pair may be nearly orthogonal
    layer.weight_v.copy_(right[0])
    return lambda: (spectral(layer.weight_orig, layer.weight_u, layer.weight_v), layer.bias)


def new_spectral_norm(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    parametrizations.spectral_norm(layer)
    own = layer.parametrizations.weight
    return lambda: (spectral(own.original, own[0]._u, own[0]._v), layer.bias)


def spectral(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return weight / (u @ weight.flatten(1) @ v)


def pruned(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    prune.l1_unstructured(layer, "weight", amount=0.4)
    return lambda: (layer.weight_orig * layer.weight_mask, layer.bias)


def parametrized(place: Place, watch: Watch) -> Merged:
    layer = place.layer
    parametrize.register_parametrization(layer, "weight", Squashed())
    return lambda: (torch.tanh(2 * layer.parametrizations.weight.original), layer.bias)


def quantized(place: Place, watch: Watch) -> Merged:
    new = Int8(place.layer)
    place.replace(new)
    return lambda: (new.wide(), new.bias)


def patch_instance(place: Place, watch: Watch) -> Merged:
    before = place.layer.forward

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        watch.count()
        return before(x) * 1.5

    place.layer.forward = types.MethodType(forward, place.layer)
    return scaled(place, 1.5, 1.5)


def nothing(place: Place, watch: Watch) -> Merged:
    return same(place)


def by_the_class(place: Place, watch: Watch) -> Merged:
    """Inside :func:`patched_classes`."""
    own = type(place.layer).forward is torch_kind(place.layer).forward
    factor = 1.5 if own else 1  # a masked layer has a forward of its own
    return scaled(place, factor, factor)


def by_a_global_hook(place: Place, watch: Watch) -> Merged:
    """Inside :func:`global_hook`."""
    place.layer.widened = True
    return scaled(place, 1.5, 1.5)


@contextmanager
def patched_classes(watch: Watch) -> Iterator[None]:
    before = {kind: kind.forward for kind in KINDS}

    def patch(kind: Any) -> None:
        def forward(self: nn.Module, x: Tensor) -> Tensor:
            return before[kind](self, x) * 1.5

        kind.forward = forward

    for kind in KINDS:
        patch(kind)
    try:
        yield
    finally:
        for kind, forward in before.items():
            kind.forward = forward  # type: ignore[attr-defined]


@contextmanager
def global_hook(watch: Watch) -> Iterator[None]:
    def widen(layer: nn.Module, arguments: object, output: Any) -> Any:
        return output * 1.5 if "widened" in layer.__dict__ else None

    handle = nn.modules.module.register_module_forward_hook(widen)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def global_backward_hook(watch: Watch) -> Iterator[None]:
    def widen(layer: nn.Module, input_grads: Any, output_grads: object) -> Any:
        if not isinstance(layer, KINDS):
            return None
        watch.count()
        return tuple(None if grad is None else grad * 1.5 for grad in input_grads)

    handle = nn.modules.module.register_module_full_backward_hook(widen)
    try:
        yield
    finally:
        handle.remove()


def replica(root: nn.Module) -> nn.Module:
    """A copy as ``nn.DataParallel`` makes them: parameters are attributes, and not leaves."""
    copies: dict[nn.Module, nn.Module] = {}
    shared: dict[Tensor, Tensor] = {}
    for module in root.modules():
        copies[module] = copy = module._replicate_for_data_parallel()
        copy._former_parameters = {}  # type: ignore[assignment]
    for module, copy in copies.items():
        for name, child in module._modules.items():
            copy._modules[name] = None if child is None else copies[child]
        for name, parameter in module._parameters.items():
            if parameter is None:
                copy._parameters[name] = None
            else:
                value = shared.setdefault(parameter, parameter.view_as(parameter))
                setattr(copy, name, value)
                copy._former_parameters[name] = value  # type: ignore[index]
        for name, buffer in module._buffers.items():
            copy._buffers[name] = None if buffer is None else buffer.clone()
    return copies[root]


@dataclass(frozen=True)
class Habit:
    """Something that people do to layers.

    Attributes:
        put: Does it to one layer, and returns the weights that it amounts to.
        during: Does it for a while, to all.
        counts: The layers' hooks count their calls: "forward", "backward", or not.
        copies: A copy of the whole takes the place of the graph.
    """

    put: Callable[[Place, Watch], Merged] = nothing
    during: Callable[[Watch], Any] | None = None
    counts: str = ""
    copies: Callable[[nn.Module], nn.Module] | None = None


HABITS = {
    "forward hook that observes": Habit(observe, counts="forward"),
    "forward pre-hook that changes the input": Habit(change_input, counts="forward"),
    "forward hook that changes the output": Habit(change_output, counts="forward"),
    "full backward hook": Habit(change_gradient, counts="backward"),
    "full backward pre-hook": Habit(change_output_gradient, counts="backward"),
    "global forward hook": Habit(by_a_global_hook, during=global_hook),
    "global backward hook": Habit(during=global_backward_hook, counts="backward"),
    "LoRA wrapper": Habit(wrap_lora),
    "LoRA subclass put in place": Habit(put_lora),
    "LoRA subclass by change of class": Habit(become_lora),
    "weight_norm, old": Habit(old_weight_norm),
    "weight_norm, parametrization": Habit(new_weight_norm),
    "spectral_norm, old": Habit(old_spectral_norm),
    "spectral_norm, parametrization": Habit(new_spectral_norm),
    "pruned": Habit(pruned),
    "parametrized": Habit(parametrized),
    "int8 weights": Habit(quantized),
    "forward patched on the instance": Habit(patch_instance, counts="forward"),
    "forward patched on the class": Habit(by_the_class, during=patched_classes),
    "data-parallel replica": Habit(copies=replica),
}


@torch.no_grad()
def merge(root: nn.Module, amounts: Iterable[Merged], only: int | None = None) -> None:
    """Give a module the weights that adapters amount to; the layers are those of :func:`places`, or one of them."""
    found = places(root) if only is None else places(root)[only : only + 1 or None]
    for place, amount in zip(found, amounts, strict=True):
        weight, bias = amount()
        place.layer.weight.copy_(weight)
        if bias is not None:
            place.layer.bias.copy_(bias)
