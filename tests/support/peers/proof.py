"""Parts that the proofs of all libraries share."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from functools import cache

Proof = tuple[str, Callable[[], object]]
"""The cell of the table, and a function that raises if it is not true."""


@cache
def public_names(package: str) -> frozenset[str]:
    """Return the names of all classes and functions that a package defines, and those of its modules."""
    found = set()
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if module.name.rpartition(".")[2] == "conftest" or ".experimental." in module.name:
            continue  # these import packages of their own
        found.add(module.name)
        for name, value in vars(importlib.import_module(module.name)).items():
            mine = getattr(value, "__module__", "").startswith(package)
            if mine and (inspect.isclass(value) or inspect.isfunction(value)):
                found.add(name)
    return frozenset(found)


def absent(package: str, pattern: str) -> Callable[[], None]:
    """Return a proof that no class, function or module of a package has a name like this."""

    def prove() -> None:
        assert len(public_names(package)) > 30
        found = sorted(name for name in public_names(package) if re.search(pattern, name, re.IGNORECASE))
        assert not found, f"{package} has {found}"

    return prove


def takes(function: Callable[..., object], *names: str) -> Callable[[], None]:
    """Return a proof that a function has exactly these parameters."""

    def prove() -> None:
        assert tuple(inspect.signature(function).parameters) == names

    return prove


def fails(function: Callable[[], object], *errors: type[Exception]) -> None:
    """Check that a call raises one of these errors."""
    try:
        function()
    except errors:
        return
    raise AssertionError("nothing was raised")


REBUILDS = "memory|rematerial|recompute"
PATTERNS = {
    "Images": "conv|squeeze|image|pixel",
    "Continuous flows": "cnf|ffj|odeint|continuous",
    "Haar wavelets": "haar|wavelet",
    "Training in constant memory": REBUILDS,
    "Checkpoints that name their model": "(save|load)|fingerprint",
    "Tools to test a layer of your own": "test",
    "Drawing of the network": "draw|plot|graphviz|visual",
    "Hamiltonian and Metropolis layers": "metropolis|hamilton|mcmc",
    "Neural autoregressive flows": "neural_?autoreg|block_?autoreg|naf$",
    "JAX": "jax",
}
"""Rows of the table, with the names that a package has if it has something of the kind."""


def lacks(package: str) -> dict[str, Proof]:
    """Return proofs that all these cells are "no"; a library's column begins with them, and names what it has."""
    return {row: ("no", absent(package, pattern)) for row, pattern in PATTERNS.items()}
