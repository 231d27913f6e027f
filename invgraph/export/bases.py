"""Base densities that evaluate any value: a program that is traced can't decide by its data whether to go on."""

from __future__ import annotations

import copy
from typing import Any

from torch.distributions import Distribution

from invgraph.flow import Flow


def without_validation(flow: Flow) -> Flow:
    """Return a flow over the same graph, whose bases are copies that do not validate values."""
    if flow.latents.bases is None:
        return flow
    other = copy.copy(flow)
    other.base = tuple(map(_lenient, flow.latents.bases))
    return other


def _lenient(base: Distribution) -> Distribution:
    """Return a copy of a distribution, of the distributions in it and of flows behind these, without validation."""
    parts = {name: part for name, part in vars(base).items() if isinstance(part, (Distribution, Flow))}
    other: Any = copy.copy(base)
    Distribution.__init__(other, base.batch_shape, base.event_shape, validate_args=False)
    for name, part in parts.items():
        vars(other)[name] = _lenient(part) if isinstance(part, Distribution) else without_validation(part)
    return other  # type: ignore[no-any-return]
