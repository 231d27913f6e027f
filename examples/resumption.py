"""The training state of a checkpoint, handed out only to a run with the same settings."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe import Recipe
from torch import nn

import invgraph as ig


def resumable(
    path: Path, recipe: Recipe, seed: int, metadata: Mapping[str, Any], model: nn.Module | None = None
) -> dict[str, Any]:
    """Load the training state of a checkpoint.

    Arguments:
        path: Path of the checkpoint.
        recipe: Hyperparameters of the resumed run, which must equal those of the checkpoint.
        seed: Seed of the resumed run, which must equal that of the checkpoint.
        metadata: Metadata of the resumed run, such as sizes, noise and statistics, which the checkpoint must contain;
            others are ignored. Numbers may differ by 1e-5, as statistics do on another processor.
        model: Model that receives the weights of the checkpoint. Default: none.

    Raises:
        ValueError: If there is no training state, or the recipe, seed or metadata differ.
    """
    saved = ig.load(path)
    state = saved.training
    if state is None:
        raise ValueError(f"{path} holds no training state: it can be used, but not resumed")
    before = state["recipe"] | {"seed": state["seed"]}
    changed = _differences(before, asdict(recipe) | {"seed": seed}, operator.eq)
    changed = changed or _differences(saved.metadata, metadata, _is_close)
    if changed:
        raise ValueError(f"{path} was trained otherwise ({', '.join(changed)}): resume with the same settings")
    if model is not None:
        ig.load(path, model)
    return dict(state)


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], is_same: Callable[[Any, Any], bool], prefix: str = ""
) -> list[str]:
    """Return the values that differ from those of a checkpoint, which stores tuples as lists."""
    found: list[str] = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += _differences(old, value, is_same, f"{prefix}{name}.")
        elif not is_same(old, value):
            found.append(f"{prefix}{name} {old} -> {value}")
    return found


def _is_close(old: Any, value: Any) -> bool:
    if isinstance(value, tuple | list):
        return isinstance(old, tuple | list) and len(old) == len(value) and all(map(_is_close, old, value))
    if isinstance(value, float) and isinstance(old, float):
        return math.isclose(old, value, rel_tol=1e-5, abs_tol=1e-6)
    return bool(old == value)
