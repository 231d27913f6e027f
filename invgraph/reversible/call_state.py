"""State of the forward call, restored in the backward pass: autocast, parameters, statistics, random numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import filterfalse
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError, NumericsError
from invgraph.graph.schedule import Step
from invgraph.numerics.processes import is_sharded
from invgraph.shapes import Tensors
from invgraph.torch_internals import batch_norms, has_hooks, tensor_stores, uncached_weights, version


class Autocast(NamedTuple):
    """The autocast settings of the forward call, for the backward pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, device: str) -> Autocast:
        if not torch.amp.is_autocast_available(device):
            return cls("cpu", False, torch.bfloat16)
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def restore(self) -> AbstractContextManager[object]:
        # Without caches: they would hand weights that were made without gradient to the run with gradient.
        context = uncached_weights()
        context.enter_context(torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False))
        return context


def random_states(reference: Tensor) -> tuple[Tensor, ...]:
    """Return the states of the global generators of the CPU, and of the CUDA device of the data."""
    states = [torch.get_rng_state()]
    if reference.device.type == "cuda":
        states.append(torch.cuda.get_rng_state(reference.device))
    return tuple(states)


_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU
)  # fmt: skip


def drop(parts: Sequence[nn.Module]) -> bool:
    """True if dropout is on: it may change no value yet, behind a last layer of zeros."""
    return any(part.training and isinstance(part, _DROPOUTS) for part in parts)


def part_with_changed_buffers(module: nn.Module, parts: Sequence[nn.Module], states: Mapping[int, int]) -> str | None:
    """Return the name of a part, other than batch norm, whose buffers a call has changed; None if there is none.

    Arguments:
        module: The module that was called.
        parts: All its modules.
        states: What :func:`buffer_versions` returned before the call.
    """
    norms = set(batch_norms(parts))
    for part in parts:
        if part not in norms and any(states.get(id(b)) != version(b) for b in part.buffers(recurse=False)):
            return f"{_name_of(part, module)} ({type(part).__name__})"
    return None


def _name_of(part: nn.Module, module: nn.Module) -> str:
    return str(next(name for name, other in module.named_modules() if other is part))


def buffer_versions(parts: Sequence[nn.Module]) -> dict[int, int]:
    """Return how often each buffer of these modules has been changed."""
    return {id(buffer): version(buffer) for part in parts for buffer in part.buffers(recurse=False)}


def modes_of(parts: Sequence[nn.Module]) -> list[tuple[nn.Module, bool]]:
    """Return whether each of these modules is in training mode."""
    return [(part, part.training) for part in parts]


@contextmanager
def same_modes(modes: Sequence[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Put the parts of a module back into the modes of the forward call, and then into those that they have now."""
    changed = [part for part, training in modes if part.training != training]
    for part in changed:
        part.training = not part.training
    try:
        yield
    finally:
        for part in changed:
            part.training = not part.training


_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


def one_thread(module: nn.Module, norms: Sequence[Any]) -> AbstractContextManager[object]:
    """Let no other thread run a module with batch norms meanwhile: frozen statistics are frozen for all threads."""
    return _locks.setdefault(module, threading.RLock()) if norms else nullcontext()


@contextmanager
def frozen_statistics(norms: Sequence[Any]) -> Iterator[None]:
    """Leave the running statistics of batch norms alone: the forward call has updated them already."""
    norms = [norm for norm in norms if norm.training and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def tensors_of(parts: Sequence[nn.Module]) -> tuple[Tensors, Tensors]:
    """Return the tensors of these modules, each once, as they are now: those that need a gradient, and the others."""
    found = {id(tensor): tensor for store in tensor_stores(parts) for tensor in store.values() if tensor is not None}
    return tuple(filter(_needs_grad, found.values())), tuple(filterfalse(_needs_grad, found.values()))


_needs_grad = attrgetter("requires_grad")


def frozen_versions(tensors: Tensors) -> list[int]:
    """Return how often each parameter among these was changed in place; buffers, such as statistics, may change."""
    return [version(tensor) for tensor in tensors if isinstance(tensor, nn.Parameter)]


def require_unchanged(tensors: Tensors, versions: list[int]) -> None:
    """Refuse frozen parameters that were changed in place since the forward call."""
    if versions != frozen_versions(tensors):
        advice = "a frozen parameter was changed in place before backward: change it between the steps"
        raise NumericsError("reversible", "frozen parameters that were overwritten", advice)


def saved_tensors(ctx: Any) -> Tensors:
    """Return what the forward call saved; refuse what was changed in place since."""
    try:
        saved: Tensors = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        advice = "an output, input, condition or parameter was changed in place before backward: change a copy instead"
        raise NumericsError("reversible", "saved tensors that were overwritten", advice) from error
    return saved


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def require_repeatable(
    layers: nn.ModuleDict, steps: Sequence[Step], parts: Sequence[nn.Module], parameters: Tensors
) -> None:
    """Refuse layers that the backward pass could not run backwards, and tensors whose gradient it would not find.

    Arguments:
        layers: The layers of a graph.
        steps: The steps of a direction.
        parts: All modules that the layers consist of.
        parameters: Those of their tensors that need a gradient.
    """
    if is_sharded(parameters):
        advice = "gathering them for a second run is not supported: train the plain graph, which calls each layer once"
        raise GraphError("reversible", "sharded parameters (FSDP)", advice)
    modules = tuple(layers.values())
    for step in steps:
        if not step.feature and not isinstance(modules[step.layer], Invertible):
            given = f"node {list(layers)[step.layer]!r}: a layer in a {type(modules[step.layer]).__name__}"
            raise GraphError("reversible", given, "it calls each layer in both directions: take it out of its wrapper")
    known = set(map(id, parameters))
    for part in parts:
        own = vars(part)
        for name in [name for name in own if name not in _OF_EVERY_MODULE]:
            value = own[name]
            if not (isinstance(value, Tensor) and value.requires_grad) or id(value) in known:
                continue
            # Other results of operations, such as the last activations, may be kept; a hook makes a weight anew.
            if value.is_leaf or (name in ("weight", "bias") and not has_hooks(part)):
                path = _name_of(part, layers)
                advice = "its gradient would be lost: pass it by torch.func.functional_call, or call the plain graph"
                raise GraphError("reversible", f"the tensor {path}.{name}, which is not a parameter", advice)


Place = tuple[dict[str, Any], str, int]
"""A store of a module, the name of a tensor in it, and which of the call's parameters that is."""


def places_of(parts: Sequence[nn.Module], parameters: Sequence[Tensor]) -> list[Place]:
    """Return where these modules keep these tensors; a tied one has several places."""
    index = {id(parameter): number for number, parameter in enumerate(parameters)}
    return [
        (store, name, index[id(tensor)])
        for store in tensor_stores(parts)
        for name, tensor in store.items()
        if id(tensor) in index
    ]


@contextmanager
def tensors_of_the_call(places: Sequence[Place], parameters: Sequence[Tensor]) -> Iterator[None]:
    """Put the forward call's tensors back in their places: ``functional_call`` has taken them away since."""
    changed = [(store, name, store.get(name)) for store, name, k in places if store.get(name) is not parameters[k]]
    for store, name, k in places if changed else ():
        store[name] = parameters[k]
    try:
        yield
    finally:
        for store, name, old in changed:
            store[name] = old
            if old is None:  # sharding takes parameters away between calls
                del store[name]
