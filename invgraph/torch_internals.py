"""Everything of torch that has no public name: each in one function, with a test of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _NormBase


def is_transformed() -> bool:
    """True inside a ``torch.func`` transform such as ``vmap`` or ``grad``, or inside forward-mode differentiation."""
    # The second is what autograd.Function itself asks before every call.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched_grad(grad: Tensor) -> bool:
    """True if autograd asks for several gradients at once (``is_grads_batched``)."""
    return bool(torch._C._functorch.is_legacy_batchedtensor(grad))


def is_view(x: Tensor) -> bool:
    """True if a tensor is a view of another, also while it is traced."""
    return x._base is not None


def tensor_stores(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the dictionaries in which a module and its parts keep parameters and buffers, each once."""
    for part in module.modules():
        yield part._parameters
        yield part._buffers


def has_hooks(module: nn.Module) -> bool:
    """True if anything is called along with a module: forward or backward hooks, before or after."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return a module's own parameters by name; quicker than attributes, and empty for data-parallel replicas."""
    parameters: dict[str, nn.Parameter | None] = module.__dict__["_parameters"]
    return parameters


def children(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module's children by name; quicker than attributes."""
    found: dict[str, nn.Module] = module.__dict__["_modules"]
    return found


def is_patched(module: nn.Module) -> bool:
    """True if an instance has a ``forward`` that is not its class's."""
    return "forward" in module.__dict__


def batch_norms(module: nn.Module) -> list[Any]:
    """Return the parts of a module that normalise with statistics of the batch."""
    return [part for part in module.modules() if isinstance(part, _NormBase)]


def compile_calls(module: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let a module's calls, hooks included, go through ``wrap``, as ``nn.Module.compile`` does."""
    module._compiled_call_impl = wrap(module._call_impl)


def constant_floats() -> AbstractContextManager[Any]:
    """Compile Python floats, such as a clamp, as the constants that they are."""
    patched: AbstractContextManager[Any] = torch._dynamo.config.patch(specialize_float=True)
    return patched


def inductor_modes() -> Mapping[str, Mapping[str, Any]]:
    """Return the options that each ``mode`` of ``torch.compile`` stands for."""
    modes: Mapping[str, Mapping[str, Any]] = torch._inductor.list_mode_options()
    return modes


def compile_region(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function as a region that is compiled once and called many times."""
    # Newer torch stops at eight kinds of layers unless told otherwise.
    known = inspect.signature(torch.compiler.nested_compile_region).parameters
    many: dict[str, Any] = {"max_reuse_entries": 1 << 16} if "max_reuse_entries" in known else {}
    region: Callable[..., Any] = torch.compiler.nested_compile_region(function, **many)
    return region


def aoti_package(program: Any, path: str) -> str:
    """Compile an exported program ahead of time into a package."""
    return str(torch._inductor.aoti_compile_and_package(program, package_path=path))


def has_global_hooks() -> bool:
    """True if hooks are registered that torch calls along with every module there is."""
    return bool(torch.nn.modules.module._has_any_global_hook())
