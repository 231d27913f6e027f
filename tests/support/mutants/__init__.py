"""Tables of small mistakes, one for each room of the package and one for the examples; ``__main__.py`` plants them."""

from __future__ import annotations

from . import (
    checkpoint,
    core,
    densities,
    draw,
    examples,
    freia,
    fused,
    graph,
    inference,
    layers,
    nets,
    numerics,
    reversible,
    top,
    transforms,
)
from .mutant import Mutant as Mutant

ROOMS = (
    checkpoint,
    core,
    densities,
    draw,
    examples,
    freia,
    fused,
    graph,
    inference,
    layers,
    nets,
    numerics,
    reversible,
    top,
    transforms,
)
MUTANTS: tuple[Mutant, ...] = tuple(mutant for room in ROOMS for mutant in room.MUTANTS)
"""All mistakes."""
