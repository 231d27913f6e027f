"""The compiled runner: the settings under which a graph is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from invgraph.errors import GraphError
from invgraph.graph.run import regions
from invgraph.torch_internals import constant_floats, hook_stores, inductor_modes

# Inductor is safe with the options below, and these two reuse no memory. Of any other backend nothing is known.
_SAFE_BACKENDS = ("inductor", "eager", "aot_eager")


def compiled(module: nn.Module, function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """``torch.compile(function, **settings)``, with numbers such as a clamp taken as the constants they are.

    Inside another compilation the function is traced as it is: the settings here don't reach that compiler.

    Arguments:
        module: The module that the function runs.
        function: One of its directions.
        settings: Arguments of ``torch.compile``.
    """
    run = torch.compile(function, **_safe(settings))
    backend = settings.get("backend", "inductor")
    forward_hooks, backward_hooks = hook_stores(module)

    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if settings.get("fullgraph") and any(backward_hooks):
            advice = "torch can't compile them: remove them, or compile with fullgraph=False"
            raise GraphError("Graph.compile", "full backward hooks, on a module of the graph or on all", advice)
        hooks = ",".join([str(key) for store in filter(None, (*forward_hooks, *backward_hooks)) for key in store])
        # A region can't hand out what a hook keeps, and without a compiler behind it has no gradient.
        differentiable = backend != "eager" or not torch.is_grad_enabled()
        with _tracing(backend in _SAFE_BACKENDS and differentiable, hooks), constant_floats():
            return run(*args, **kwargs)

    return call


@contextmanager
def _tracing(wanted: bool, hooks: str) -> Iterator[None]:
    before = regions.wanted, regions.hooks
    regions.wanted, regions.hooks = wanted, hooks
    try:
        yield
    finally:
        regions.wanted, regions.hooks = before


# Regions keep views of their arguments for the backward pass. Inductor (torch 2.13) considers that memory free once
# the last region has read it, and reuses it: gradients would be wrong without a word.
_UNSHARED = {"allow_buffer_reuse": False, "inplace_buffers": False}


def _safe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and that no memory is used twice; a mode as the options it stands for, since torch takes one."""
    mode, options = settings.get("mode"), settings.get("options")
    modes = inductor_modes()
    if settings.get("backend", "inductor") != "inductor" or (mode is not None and (options or mode not in modes)):
        return dict(settings)
    chosen = {**(modes[mode] if mode else {}), **(options or {}), **_UNSHARED}
    return {**settings, "mode": None, "options": chosen}
