"""The compiled runner: how a graph is compiled, and its layers called inside, as regions that equal layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from invgraph.shapes import Tensors


def compiled(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    """``torch.compile(function, **settings)``, with numbers such as a clamp taken as the constants they are."""
    run = torch.compile(function, **settings)

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._dynamo.config.patch(specialize_float=True):
            return run(*args, **kwargs)

    return call


def run_layer(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> Any:
    """Call a layer, in one of its directions."""
    if layer.compiled_once and torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return _region(layer, xs, cs, inverse)
    return layer.inverse(xs, cs) if inverse else layer(xs, cs)


@torch.compiler.nested_compile_region
def _region(layer: Any, xs: Tensors, cs: Tensors, inverse: bool) -> Any:
    return layer.inverse(xs, cs) if inverse else layer(xs, cs)
