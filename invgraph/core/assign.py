"""Initial values of parameters, which may be computed from others by now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from invgraph.errors import GraphError


def assign(layer: Any, name: str, value: Tensor) -> None:
    """Give a parameter a value in place, through its parametrization if it has one; the caller turns gradients off.

    Raises:
        GraphError: If the parametrization can't take the value, or a hook computes the parameter.
    """
    own = dict(layer.named_parameters(recurse=False))
    if name in own:
        own[name].copy_(value.view_as(own[name]))
        return
    advice = "call initialize first, and parametrize, prune or normalize the parameter afterwards"
    given = f"initial values of {name}, which is computed from other parameters"
    if not parametrize.is_parametrized(layer, name):
        raise GraphError(layer.label, given, advice)
    wanted = value.view_as(getattr(layer, name))
    try:
        setattr(layer, name, wanted)
    except (NotImplementedError, RuntimeError) as error:
        raise GraphError(layer.label, given, f"its parametrization has no right_inverse: {advice}") from error
    if not torch.allclose(getattr(layer, name), wanted, rtol=1e-3, atol=1e-5):
        raise GraphError(layer.label, given, f"its parametrization can't take on these values: {advice}")
