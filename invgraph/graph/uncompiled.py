"""A call that compilers leave out of their code. Importing it takes a second, so only what they trace imports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

R = TypeVar("R")


def _call(function: Callable[..., R], *args: Any) -> R:
    return function(*args)


if TYPE_CHECKING:
    uncompiled = _call
else:
    uncompiled = torch.compiler.disable(
        _call,
        reason="Graph(check_finite=True) reads the data after every node, which compiled code can't do: set "
        "graph.check_finite = False, or compile with fullgraph=False, which runs the graph as it is written",
    )
