"""FrEIA's names in ``sys.modules``, for scripts that import FrEIA."""

from __future__ import annotations

import sys

from invgraph.errors import DependencyError
from invgraph.freia import seeding

_OURS, _THEIRS = "invgraph.freia", "FrEIA"


def install(*, seeds_like_freia: bool = False) -> None:
    """Let ``import FrEIA`` and all its submodules find this package, in this process.

    Arguments:
        seeds_like_freia: Also call :func:`invgraph.freia.seeds_like_freia`.

    Raises:
        DependencyError: If FrEIA itself is imported already.

    Example:
        >>> import invgraph.freia
        >>> invgraph.freia.install()  # doctest: +SKIP
        >>> import FrEIA.framework as Ff  # doctest: +SKIP
        >>> Ff.GraphINN.__module__  # doctest: +SKIP
        'invgraph.freia.framework.graph_inn'
    """
    present = sys.modules.get(_THEIRS)
    if present is not None and present is not sys.modules[_OURS]:
        given = f"FrEIA is imported already, from {getattr(present, '__file__', None)}"
        raise DependencyError("install", given, "call invgraph.freia.install() before anything imports FrEIA")
    for name, module in list(sys.modules.items()):
        if name == _OURS or name.startswith(f"{_OURS}."):
            sys.modules[name.replace(_OURS, _THEIRS, 1)] = module
    if seeds_like_freia:
        seeding.seeds_like_freia()
