"""A switch that lets seeded permutations reseed numpy's global generator, as they do in FrEIA."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

_reseeds = False


def numpy_from(seed: int | None) -> Any:
    """Return numpy's global generator where there is no seed, or one that starts from the seed."""
    if seed is not None and _reseeds:
        np.random.seed(seed)
        seed = None
    return np.random if seed is None else np.random.RandomState(seed)


class Seeding:
    """Context manager that :func:`seeds_like_freia` returns; its end restores the former behavior."""

    def __init__(self, before: bool) -> None:
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        _set(self._before)


def seeds_like_freia(enabled: bool = True) -> Seeding:
    """Let ``PermuteRandom(seed=...)`` reseed numpy's global generator, as it does in FrEIA.

    All draws from numpy that follow depend on it: the permutations and rotations of later all-in-one blocks, and a
    program's own. A program that starts from scratch then draws what it draws with FrEIA. By default a seeded
    permutation has FrEIA's order, but leaves the global generator alone.

    Call it before the networks are built. It works at once, and until the end of the block in a ``with`` statement.

    Arguments:
        enabled: False for the default.

    Example:
        >>> import numpy as np, invgraph as ig
        >>> with ig.freia.seeds_like_freia():
        ...     _ = ig.freia.modules.PermuteRandom([(4,)], seed=0)
        >>> state = np.random.RandomState(0)
        >>> order = state.permutation(4)
        >>> bool(np.random.rand() == state.rand())
        True
    """
    before = _reseeds
    _set(enabled)
    return Seeding(before)


def _set(value: bool) -> None:
    global _reseeds
    _reseeds = value
