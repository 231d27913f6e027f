"""A colorization run in two phases with given validation losses, which may kill itself while it writes its files."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bedrooms_cinn
import process_group
import torch
from colorization import fitting
from colorization.photos import open_folder, statistics
from recipe import Recipe

import invgraph as ig

LOOKS = 2  # steps between two validations
FILES = {"log": ("frozen.json", "training.json"), "result": ("model.safetensors",)}


def train(data: Path, run: Path, losses: Mapping[str, float], resume: bool = False) -> bool:
    """Train in two phases; the validation after every second step returns the loss that is given for it."""
    fitting.MIN_STEPS = LOOKS
    stage = ""

    def seen(*arguments: object) -> float:
        return losses[f"{stage} {ig.load(run / f'{stage}.safetensors').training['step']}"]

    fitting.validate = seen
    torch.manual_seed(0)
    folder, preset = open_folder(data, cache=run.parent / "cache"), bedrooms_cinn.PRESETS["tiny"]
    config = {"kind": "cinn", "preset": asdict(preset), "statistics": asdict(statistics(folder))}
    model = bedrooms_cinn.build(config)
    for number, stage in enumerate(("frozen", "training")):
        steps = max((int(look.split()[1]) for look in losses if look.startswith(stage)), default=0)
        if steps and not fitting.fit(
            model, folder, preset.seen, Recipe(steps, 4, 1e-2), run, where=process_group.Place(torch.device("cpu")),
            config={"some": "config"}, seed=number, resume=resume, stage=stage, earlier=["frozen"][:number],
        ):  # fmt: skip
            return False
    return True


def killed_at(name: str, number: int) -> None:
    """Kill this process when it begins to write the log or the result for the n-th time."""
    seen = 0
    save, replace = ig.save, Path.replace

    def due(path: Any) -> None:
        nonlocal seen
        seen += str(path).endswith(FILES[name])
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def save_or_die(path: Any, *arguments: Any, **options: Any) -> None:
        due(path)
        save(path, *arguments, **options)

    def replace_or_die(path: Path, target: Path) -> Path:
        due(target)
        return replace(path, target)

    ig.save, Path.replace = save_or_die, replace_or_die


def die(data: Path, run: Path, losses: Mapping[str, float], file: str, number: int) -> None:
    """Train until the n-th writing of the file, "log" or "result"."""
    torch.set_num_threads(1)
    killed_at(file, number)
    train(data, run, losses)
