"""Everything of torch that has no public name: each in one function, with a test of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, repeat
from operator import attrgetter, contains, is_, methodcaller
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

PLAIN = (Tensor, nn.Parameter)
"""The tensor types without overrides: subclasses, such as distributed or quantized ones, know fewer operations."""
WEIGHT_NORM: type[nn.Module] = torch.nn.utils.parametrizations._WeightNorm
"""The class of the parametrization by magnitude and direction."""

is_jit_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]


def is_transformed() -> bool:
    """True inside a ``torch.func`` transform such as ``vmap`` or ``grad``, or inside forward-mode differentiation."""
    # The second is what autograd.Function itself asks before every call.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_eager() -> bool:
    """True if operations run as they are written.

    Compilers trace plain operations better than derived ones, ``torch.jit.trace`` traces nothing else, ``torch.func``
    and forward-mode differentiation derive them to any order, and dispatch modes keep what they return.
    """
    is_traced = torch.compiler.is_compiling() or is_jit_tracing() or is_transformed()
    return not is_traced and torch._C._len_torch_dispatch_stack() == 0


def is_plain(x: Tensor) -> bool:
    """True if operations on a tensor run as they are written, in its own precision: it has no overrides."""
    if not is_eager() or type(x) not in PLAIN:
        return False
    device = x.device.type
    return not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))


def packs_saved_tensors() -> bool:
    """True where hooks pack what autograd saves, as in activation checkpointing; ``torch.func`` can't run there."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def forward_mode() -> AbstractContextManager[object]:
    """Return a context with forward-mode derivatives turned on; an ``autograd.Function`` silently turns them off."""
    return forward_ad._set_fwd_grad_enabled(True)


def is_batched_grad(grad: Tensor) -> bool:
    """True if autograd asks for several gradients at once (``is_grads_batched``), which compiled code never gets."""
    return not torch.compiler.is_compiling() and bool(torch._C._functorch.is_legacy_batchedtensor(grad))


def has_data(x: Tensor) -> bool:
    """True if values can be read: not of meta, fake or ``vmap``'s tensors, nor while code is compiled or captured."""
    if torch.compiler.is_compiling() or torch._subclasses.fake_tensor.is_fake(x):  # a fake one needs no device
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.is_batchedtensor(x):
            return False
        x = torch._C._functorch.get_unwrapped(x)
    is_captured = x.is_cuda and torch.cuda.is_current_stream_capturing()
    return not (is_captured or x.is_meta or torch._subclasses.fake_tensor.is_fake(x))


def all_true(x: Tensor) -> bool:
    """True if all elements are, for checks of values: unlike ``bool(x.all())``, it also works inside ``vmap``."""
    return bool(torch._is_all_true(x))


def validates_arguments(base: torch.distributions.Distribution) -> bool:
    """True if a distribution refuses values outside its support."""
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    return bool(base._validate_args)


def is_view(x: Tensor) -> bool:
    """True if a tensor is a view of another, also while it is traced."""
    return x._base is not None


def tensor_stores(modules: Iterable[nn.Module]) -> Iterator[dict[str, Any]]:
    """Yield the dictionaries in which these modules keep parameters and buffers of their own.

    The replicas of ``nn.DataParallel`` keep their parameters as attributes, and list them in a dictionary besides.
    """
    for part in modules:
        yield part._parameters
        yield part._buffers
        if "_former_parameters" in part.__dict__:
            yield part.__dict__["_former_parameters"]


def floating_tensor(module: nn.Module) -> Tensor | None:
    """Return a module's first floating-point parameter, or else buffer, whose dtype and device its data must have."""
    # Asked at every call of every layer: one loop over the dictionaries costs a tenth of module.parameters().
    waiting: list[nn.Module | None] = [module]
    buffer: Tensor | None = None
    while waiting:
        part = waiting.pop()
        if part is None:
            continue
        for parameter in part._parameters.values():
            if parameter is not None and parameter.is_floating_point():
                return parameter
        for value in part._buffers.values() if buffer is None else ():
            if value is not None and value.is_floating_point():
                buffer = value
        waiting.extend(list(part._modules.values())[::-1])
    return buffer


def version(tensor: Tensor) -> int:
    """Return how often a tensor has been changed in place."""
    return tensor._version


has_global_hooks: Callable[[], bool] = torch.nn.modules.module._has_any_global_hook
"""True if hooks are registered that torch calls along with every module there is."""
child_store: Callable[[nn.Module], dict[str, nn.Module | None]] = attrgetter("_modules")
"""Return the dictionary of a module's children; unlike ``named_children``, it has all names of a child."""


def has_hooks(part: nn.Module) -> bool:
    """True if anything is called along with a module: forward or backward hooks, before or after."""
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)


def hook_stores(module: nn.Module) -> tuple[list[dict[int, Any]], list[dict[int, Any]]]:
    """Return the dictionaries that hold the hooks of a module, its parts, and all modules: forward, and backward."""
    every, parts = torch.nn.modules.module, list(module.modules())
    forward = [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
    backward = [hooks for part in parts for hooks in (part._backward_hooks, part._backward_pre_hooks)]
    forward += [every._global_forward_hooks, every._global_forward_pre_hooks]
    backward += [every._global_backward_hooks, every._global_backward_pre_hooks]
    return forward, backward


def is_untouched(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """True if a call of a module runs its class's own ``forward``, given here, and no hook, adapter or patch."""
    if type(module).forward is not forward or type(module).__call__ is not _call or "forward" in module.__dict__:
        return False
    return module._compiled_call_impl is None and not has_hooks(module) and not has_global_hooks()


def as_function(module: nn.Module) -> Callable[..., Any]:
    """Return a module's ``forward`` where a call does nothing else, or the module: a call of it costs microseconds."""
    if type(module).__call__ is not _call or module._compiled_call_impl is not None:
        return module
    return module if has_hooks(module) or has_global_hooks() else module.forward


def own_weights(layer: nn.Module, forward: Callable[..., Any]) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of a layer without hooks or patches; None if one is anything but a plain parameter."""
    own = layer._parameters
    if own.keys() != {"weight", "bias"} or not is_untouched(layer, forward):
        return None
    weight, bias = own["weight"], own["bias"]
    return (weight, bias) if type(weight) in PLAIN and (bias is None or type(bias) in PLAIN) else None  # type: ignore[return-value]


def has_own_convolution(layer: Any) -> bool:
    """True if nobody has patched the method that pads and convolves; a class other than torch's may have its own."""
    return "_conv_forward" not in vars(layer) and _convolve.get(type(layer)) in (None, type(layer)._conv_forward)


_convolve: dict[Any, Any] = {kind: kind._conv_forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)}
_values, _call = methodcaller("values"), nn.Module.__call__  # the latter to notice patches
_stores = attrgetter("_modules", "_parameters", "_buffers")
_hooks = attrgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Snapshot:
    """All that calling a module and its parts depends on: classes, children, tensors, and hooks, which are none."""

    def __init__(self, root: nn.Module) -> None:
        self.root, self._parts = root, list(root.modules())
        self._kinds: list[Any] = list(map(type, self._parts))
        self._forwards = [(kind, kind.forward) for kind in dict.fromkeys(self._kinds)]
        self._stores: list[dict[str, Any]] = list(chain.from_iterable(map(_stores, self._parts)))
        self._sizes, self._filled = list(map(len, self._stores)), [store for store in self._stores if store]
        self._tensors = list(chain.from_iterable(map(_values, self._filled)))

    def holds(self) -> bool:
        """True if nothing has changed since, and nothing else is called along with the modules."""
        # Asked at every call of a coupling: whole lists are compared without a loop in Python.
        if any(chain.from_iterable(map(_hooks, self._parts))) or has_global_hooks():
            return False
        if list(map(type, self._parts)) != self._kinds or list(map(len, self._stores)) != self._sizes:
            return False
        for kind, forward in self._forwards:
            if kind.forward is not forward:
                return False
        is_patched = True in map(contains, map(vars, self._parts), repeat("forward"))
        return not is_patched and False not in map(is_, chain.from_iterable(map(_values, self._filled)), self._tensors)


def replace_children(copied: nn.Module, children: dict[str, nn.Module]) -> None:
    """Give a shallow copy of a module other children of these names; the original keeps its own."""
    copied._modules = {**copied._modules, **children}


def replace_buffers(copied: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Give a shallow copy of a module other buffers of these names; the original keeps its own."""
    copied._buffers = {**copied._buffers, **buffers}


def uncached_weights() -> ExitStack:
    """Let parametrized weights be computed anew until the context ends, also within ``parametrize.cached``."""
    stack = ExitStack()
    stack.callback(setattr, parametrize, "_cache_enabled", parametrize._cache_enabled)
    parametrize._cache_enabled = 0
    return stack


def batch_norms(modules: Iterable[nn.Module]) -> list[Any]:
    """Return those modules that normalize with statistics of the batch."""
    return [module for module in modules if isinstance(module, _NormBase)]


def compile_calls(module: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let a module's calls, hooks included, go through ``wrap``, as ``nn.Module.compile`` does."""
    module._compiled_call_impl = wrap(module._call_impl)


def constant_floats() -> AbstractContextManager[Any]:
    """Return a context in which Python floats, such as a clamp, are compiled as constants."""
    return torch._dynamo.config.patch(specialize_float=True)  # type: ignore[no-any-return]


def hook_guards() -> AbstractContextManager[Any]:
    """Return a context in which the same code is compiled again for modules with other hooks."""
    return torch._dynamo.config.patch(skip_nnmodule_hook_guards=False)  # type: ignore[no-any-return]


def inductor_modes() -> Mapping[str, Mapping[str, Any]]:
    """Return the options that each ``mode`` of ``torch.compile`` stands for."""
    return torch._inductor.list_mode_options()


def compile_region(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as a region that is compiled once and called many times."""
    # Newer torch stops at eight kinds of layers unless told otherwise.
    known = inspect.signature(torch.compiler.nested_compile_region).parameters
    many: dict[str, Any] = {"max_reuse_entries": 1 << 16} if "max_reuse_entries" in known else {}
    return torch.compiler.nested_compile_region(function, **many)  # type: ignore[no-any-return]


def exported_module() -> nn.Module | None:
    """Return the module that ``torch.export`` is tracing by running it; None where it traces Python itself, or not."""
    mode = None if torch.compiler.is_dynamo_compiling() else torch.fx.experimental.proxy_tensor.get_proxy_mode()
    root = None if mode is None else getattr(mode.tracer, "scope_root", None)
    return getattr(root, "_export_root", root)


def aoti_package(program: Any, path: str) -> str:
    """Compile an exported program ahead of time into a package."""
    return str(torch._inductor.aoti_compile_and_package(program, package_path=path))


def load_state(module: nn.Module, state: Mapping[str, Any], *, strict: bool, assign: bool) -> None:
    """Load a state as ``load_state_dict`` does, which looks through all tensors once a child; here they are divided."""
    if type(module).load_state_dict is not nn.Module.load_state_dict:
        module.load_state_dict(state, strict=strict, assign=assign)
        return
    missing, unexpected, errors = list[str](), list[str](), list[str]()

    def visit(part: nn.Module, own: dict[str, Any], prefix: str) -> None:
        local = {"assign_to_params_buffers": assign} if assign else {}
        part._load_from_state_dict(own, prefix, local, True, missing, unexpected, errors)
        divided: dict[str, dict[str, Any]] = {}
        for key, value in own.items():
            child, dot, _ = key.removeprefix(prefix).partition(".")
            if dot:
                divided.setdefault(child, {})[key] = value
        for name, child_module in part._modules.items():
            if child_module is not None:
                visit(child_module, divided.get(name, {}), f"{prefix}{name}.")
        for hook in part._load_state_dict_post_hooks.values():
            hook(part, nn.modules.module._IncompatibleKeys(missing, unexpected))

    visit(module, dict(state), "")
    if strict:
        found = (("missing", missing), ("unexpected", unexpected))
        errors += [f"{what} keys: {', '.join(keys)}" for what, keys in found if keys]
    if errors:
        raise RuntimeError("; ".join(errors))
