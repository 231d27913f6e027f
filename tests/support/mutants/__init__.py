"""Tables of small mistakes, one for each room of the package, and a runner that plants them: see ``__main__.py``."""

from __future__ import annotations

from . import checkpoint, core, draw, fused, graph, inference, layers, nets, numerics, reversible, top, transforms
from .mutant import Mutant as Mutant

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant
    for room in (draw, numerics, fused, transforms, core, nets, graph, layers, reversible, checkpoint, inference, top)
    for mutant in room.MUTANTS
)
"""All mistakes."""
