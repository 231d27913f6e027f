"""Scripts in FrEIA's style, run on FrEIA or on ours."""

from __future__ import annotations

import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invgraph as ig

SCRIPTS = sorted((Path(__file__).parents[1] / "freia" / "scripts").glob("*.py"))

FAST = ("awkward_nodes", "conditional_mnist", "moons_sequence", "own_layers", "reverse_kl", "several_ends", "toy_inn")
"""Scripts that the fast suite runs; the slow one runs all."""

PARAMS = [pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else pytest.mark.slow) for path in SCRIPTS]


def is_freia(name: str) -> bool:
    return name == "FrEIA" or name.startswith("FrEIA.")


@contextmanager
def imports(ours: bool) -> Iterator[None]:
    """Within the context ``import FrEIA`` finds our package, or the package of that name."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if is_freia(name)}
    try:
        if ours:
            ig.freia.install()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pytest.importorskip("FrEIA")
        yield
    finally:
        for name in list(sys.modules):
            if is_freia(name):
                del sys.modules[name]
        sys.modules.update(before)


def run(path: Path, ours: bool) -> dict[str, Any]:
    torch.default_generator.manual_seed(1)
    np.random.seed(1)
    with imports(ours):
        return runpy.run_path(str(path))
