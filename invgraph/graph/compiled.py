"""Compilation of a graph, with the settings that make it correct and fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from operator import methodcaller
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.core.subnet import Concatenated
from invgraph.errors import GraphError, InvgraphError
from invgraph.graph.run import regions
from invgraph.torch_internals import (
    batch_norms,
    child_store,
    constant_floats,
    floating_tensor,
    hook_guards,
    hook_stores,
    inductor_modes,
    is_transformed,
    packs_saved_tensors,
)

# Backends under which regions are correct: inductor with the options below, and two that never reuse memory.
_SAFE_BACKENDS = ("inductor", "eager", "aot_eager")


def compiled(module: nn.Module, function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Return ``torch.compile(function, **settings)``, where floats such as a clamp are treated as constants.

    Inside another compilation the function itself is traced instead, because these settings would not apply to it.
    Inside a ``torch.func`` transform, which the compiler would have to know, and in anomaly mode, to whose tracebacks
    compiled code has nothing to say, it is run as it is; so is a graph with ``check_finite=True``, which reads the data
    after every node.

    Arguments:
        module: The module that the function runs.
        function: One of its directions.
        settings: Arguments of ``torch.compile``.
    """
    has_regions = any(getattr(layer, "compile_as_region", False) for layer in module.modules())
    run = torch.compile(_with_own_code(function), **_safe(settings, has_regions))
    backend = settings.get("backend", "inductor")
    parts = _Parts(module)
    # Without any layer of that kind there is nothing to look up in every call; one that is added later is not a region.
    has_equal_layers: Callable[[], bool] = EqualLayers(module) if has_regions else lambda: False
    in_cpp = bool((settings.get("options") or {}).get("cpp_wrapper"))  # whose code can't call a region

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or is_transformed() or torch.is_anomaly_enabled():
            return function(*args, **kwargs)
        parts.follow()
        if any(graph.check_finite for graph in parts.watched):
            return function(*args, **kwargs)
        if _differs_from_data(parts.layers, args):
            _explain(function, args, kwargs, None)
        if parts.inner is not None and packs_saved_tensors():
            advice = "torch can't compile derivatives inside a layer there: checkpoint a graph that is not compiled"
            raise GraphError(parts.inner, "a compiled call under activation checkpointing", advice)
        if settings.get("fullgraph") and any(parts.backward_hooks):
            advice = "torch can't compile them: remove them, or compile with fullgraph=False"
            raise GraphError("Graph.compile", "full backward hooks, on a module of the graph or on all", advice)
        for renew in parts.renewals:
            renew()
        stores = filter(None, (*parts.forward_hooks, *parts.backward_hooks))
        hooks = ",".join([str(key) for store in stores for key in store])
        # A region can't hand out what a hook keeps, and without a compiler behind it has no gradient.
        differentiable = backend != "eager" or not torch.is_grad_enabled()
        wanted = backend in _SAFE_BACKENDS and differentiable and not in_cpp and has_equal_layers()
        # Without fullgraph the calls of modules may be compiled one by one: equal modules share code, but not hooks.
        look = nullcontext() if settings.get("fullgraph") else hook_guards()
        try:
            with _tracing(wanted, hooks), constant_floats(), look, _without_inference_mode():
                return run(*args, **kwargs)
        except InvgraphError:
            raise
        except Exception as error:
            _explain(function, args, kwargs, error)
            raise

    return call


class _Parts:
    """The parts of a module that a compiled call looks at, gathered again when one of them has been replaced.

    Arguments:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._gather()

    def follow(self) -> None:
        # Asked at every call: one comparison of lists takes a fraction of the time of module.modules().
        if list(chain.from_iterable(map(_values, self._stores))) != self._children:
            self._gather()

    def _gather(self) -> None:
        every = list(self.module.modules())
        self._stores = list(map(child_store, every))
        self.forward_hooks, self.backward_hooks = hook_stores(self.module)
        self.layers = [part for part in every if isinstance(part, Invertible) and part is not self.module]
        self.inner = next((layer.label for layer in self.layers if getattr(layer, "uses_torch_func", False)), None)
        self.renewals = [renew for part in self.layers if (renew := getattr(part, "renew_derived", None)) is not None]
        self.watched: list[Any] = [part for part in every if hasattr(part, "check_finite")]  # the graph, and inner ones
        self._children = list(chain.from_iterable(map(_values, self._stores)))


_values = methodcaller("values")


@contextmanager
def _without_inference_mode() -> Iterator[None]:
    """Record no gradients, where inference mode would: compiled derivatives inside a layer can't run in that mode."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _explain(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], cause: Exception | None
) -> None:
    """Make a call once more without the compiler, which turns errors of this library into its own."""
    try:
        with torch.no_grad():
            function(*args, **kwargs)
    except InvgraphError as error:
        raise error from cause
    except Exception:  # not of this library: the compiler's own error says more
        return


def _differs_from_data(layers: Sequence[nn.Module], args: Sequence[Any]) -> bool:
    """True if a layer was cast or moved away from the data; compiled code might run on them anyway."""
    values = (value for arg in args for value in (arg if isinstance(arg, (tuple, list)) else (arg,)))
    data = next((value for value in values if isinstance(value, Tensor)), None)
    if data is None:
        return False
    own = map(floating_tensor, layers)
    return any(t is not None and (t.dtype != data.dtype or t.device != data.device) for t in own)


class EqualLayers:
    """True if the equal layers of a module may share compiled code; checked again when its structure has changed.

    Arguments:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._parts: list[nn.Module] = []
        self._look()

    def __call__(self) -> bool:
        if list(self.module.modules()) != self._parts or self._state() != self._before:
            self._look()
        return self._answer

    def _look(self) -> None:
        self._parts = list(self.module.modules())  # kept, and compared by identity
        self._norms = batch_norms(self._parts)
        self._foreign = [part for net in self._parts if isinstance(net, Concatenated) for part in net.module.modules()]
        self._before = self._state()
        self._answer = _are_alike(self.module) and not _changes_buffers(self.module)

    def _state(self) -> tuple[object, ...]:
        return (
            list(map(type, self._parts)),
            ["forward" in vars(part) for part in self._parts],
            [(norm.training, norm.track_running_stats) for norm in self._norms],
            [sum(1 for _ in part.buffers(recurse=False)) for part in self._foreign],
        )


def _are_alike(module: nn.Module) -> bool:
    """True unless a module has a forward of its own, or layers that look alike are made of other classes.

    The compiler takes such layers for equal and would run the code of the first in place of the others.
    """
    seen: dict[tuple[type, int], list[type]] = {}
    for layer in module.modules():
        if getattr(layer, "compile_as_region", False):
            parts = list(layer.modules())
            kinds = [type(part) for part in parts]
            if (
                any("forward" in vars(part) for part in parts)
                or seen.setdefault((kinds[0], len(kinds)), kinds) != kinds
            ):
                return False
    return True


def _changes_buffers(module: nn.Module) -> bool:
    """True if a subnet may change its buffers in a call, as batch norm does in training: a region can't.

    A user's module with other buffers counts as one that does, in evaluation mode too.
    """
    for layer in module.modules():
        if getattr(layer, "compile_as_region", False):
            norms = batch_norms(layer.modules())
            if any(norm.training and norm.track_running_stats for norm in norms):
                return True
            own = [part for net in layer.modules() if isinstance(net, Concatenated) for part in net.module.modules()]
            if any(part not in norms and any(True for _ in part.buffers(recurse=False)) for part in own):
                return True
    return False


def _with_own_code(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that calls that of the same module, and shares its code object with no other.

    The compiler counts the compilations of each code object, and stops at eight. Without this all graphs of a process
    would share one count, and the ninth could not be compiled.
    """
    assert isinstance(method, MethodType)
    name = method.__name__

    # A method, because the compiler guards everything by its access path, and short paths compile faster.
    def entry(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, name)(*args, **kwargs)

    entry.__code__ = entry.__code__.replace()
    return MethodType(entry, method.__self__)


@contextmanager
def _tracing(wanted: bool, hooks: str) -> Iterator[None]:
    before = regions.wanted, regions.hooks
    regions.wanted, regions.hooks = wanted, hooks
    try:
        yield
    finally:
        regions.wanted, regions.hooks = before


# Regions keep views of their arguments for the backward pass. Inductor (torch 2.13) considers that memory free once
# the last region has read it, and reuses it, which would silently give wrong gradients.
_NO_BUFFER_REUSE = {"allow_buffer_reuse": False, "inplace_buffers": False}
# Guards have looked at the sizes already; in a small flow, looking again takes a sixth of a training step.
_QUICK = {"size_asserts": False}


def _safe(settings: Mapping[str, Any], has_regions: bool) -> dict[str, Any]:
    """Add the options that regions need; a mode is replaced by its options, as torch accepts only one of both."""
    mode, options = settings.get("mode"), settings.get("options")
    modes = inductor_modes()
    if settings.get("backend", "inductor") != "inductor" or (mode is not None and (options or mode not in modes)):
        return dict(settings)
    chosen = {**_QUICK, **(modes[mode] if mode else {}), **(options or {})}
    if has_regions:
        chosen |= _NO_BUFFER_REUSE
    return {**settings, "mode": None, "options": chosen}
