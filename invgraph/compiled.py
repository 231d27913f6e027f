"""The compiled runner: the settings under which a graph is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def compiled(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """``torch.compile(function, **settings)``, with numbers such as a clamp taken as the constants they are."""
    run = torch.compile(function, **_safe(settings))

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._dynamo.config.patch(specialize_float=True):
            return run(*args, **kwargs)

    return call


# Regions keep views of their arguments for the backward pass. Inductor (torch 2.13) holds that memory to be free
# once the last region has read it, and computes on in it: gradients would be wrong, without a word.
_UNSHARED = {"allow_buffer_reuse": False, "inplace_buffers": False}


def _safe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and that no memory is used twice; a mode as the options it stands for, since torch takes one."""
    mode, options = settings.get("mode"), settings.get("options")
    modes = torch._inductor.list_mode_options()
    if settings.get("backend", "inductor") != "inductor" or (mode is not None and (options or mode not in modes)):
        return dict(settings)
    chosen = {**(modes[mode] if mode else {}), **(options or {}), **_UNSHARED}
    return {**settings, "mode": None, "options": chosen}
