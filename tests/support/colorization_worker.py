"""Process started by the tests of resumed colorization runs: a run in two phases, with given validation losses.

    python tests/support/colorization_worker.py FOLDER RUN '{"frozen 2": 1.0, ...}' log 1

kills itself when it is about to write the log for the first time; with ``result`` in place of ``log``, the best model.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bedrooms_cinn
import torch
import trainer
from colorization import fitting
from colorization.photos import open_folder, statistics

import invgraph as ig

LOOKS = 2  # steps between two validations
FILES = {"log": ("frozen.json", "training.json"), "result": ("model.safetensors",)}


def train(data: Path, run: Path, losses: Mapping[str, float], resume: bool = False) -> bool:
    """Train in two phases; the validation after every second step returns the loss that is given for it."""
    fitting.LEAST = LOOKS
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
            model, folder, preset.seen, trainer.Recipe(steps, 4, 1e-2), run, where=trainer.Place(torch.device("cpu")),
            config={"some": "config"}, seed=number, resume=resume, stage=stage, earlier=["frozen"][:number],
        ):  # fmt: skip
            return False
    return True


def kill_at(name: str, number: int) -> None:
    """Make this process kill itself when it is about to write a file for the n-th time."""
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    kill_at(sys.argv[4], int(sys.argv[5]))
    train(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
