"""Training of a colorizer, with regular evaluation on the validation split to keep the best weights."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from process_group import Place, together
from progress import Stop
from recipe import Recipe
from resumption import resumable
from torch import Tensor, distributed, nn
from trainer import ANNOUNCEMENT, check_batch, train

import invgraph as ig
from colorization.photos import Crops, Drawing, Folder

EVALUATIONS, MIN_STEPS = 20, 50  # evaluations per run, and the minimum number of steps between them


def fit(
    model: nn.Module,
    folder: Folder,
    side: int,
    recipe: Recipe,
    run: Path,
    *,
    where: Place,
    config: dict[str, object],
    best: bool = True,
    seed: int = 0,
    resume: bool = False,
    workers: int = 0,
    stage: str = "training",
    earlier: Sequence[str] = (),
) -> bool:
    """Train a model that returns the loss of photographs (B, 3, side, side); it ends with the weights to use.

    ``<run>/<stage>.safetensors`` is the checkpoint of a stopped run, ``<run>/model.safetensors`` the result, and
    ``<run>/<stage>.json`` the history of validation losses. They are written in this order, so that a run killed in
    between evaluates again when it is resumed.

    Arguments:
        model: Model, on its device.
        folder: Photographs.
        side: Side of a crop, in pixels.
        recipe: Hyperparameters.
        run: Folder of the run.
        where: Device and rank of this process.
        config: Config that is stored in the result.
        best: If True (default), keep the weights with the lowest validation loss, otherwise the last ones.
        seed: Seed of all random numbers. Default: 0.
        resume: If True, resume a stopped run. Default: False.
        workers: Number of processes that cut crops. Default: 0.
        stage: Name of this phase of training. Default: ``"training"``.
        earlier: Names of earlier phases, with which the validation losses are compared. Default: none.

    Returns:
        True if training was completed, False if it was stopped.
    """
    checkpoint, result = run / f"{stage}.safetensors", run / "model.safetensors"
    crops, held_out = Crops(folder, "train", side), _held_out(folder, side)
    check_batch(recipe, len(crops), where)
    every = max(MIN_STEPS, recipe.steps // EVALUATIONS)
    resume = resume and checkpoint.exists()
    done = resumable(checkpoint, recipe, seed, config)["step"] if resume else 0
    validations = _Validations(run, stage, earlier, done)
    _synchronize(where)  # every process has read the files before the first one writes

    def evaluate() -> None:
        loss = validate(model, held_out, where)
        if where.rank == 0:
            if not best or not result.exists() or validations.better(loss):
                ig.save(result, model, metadata=config | {"steps": done, "val": loss})
            validations.add(done, loss)
            print(f"step {done}: loss on the validation split {loss:.4f}", flush=True)

    drawing = Drawing(crops, workers)
    try:
        with Stop(where.device) as stop, together(where, checkpoint):
            if where.rank == 0:
                print(ANNOUNCEMENT, file=sys.stderr, flush=True)
            due = done > 0 and (done % every == 0 or done == recipe.steps)
            if due and not (validations.has(done) and result.exists()):
                ig.load(checkpoint, model)
                evaluate()
            while done < recipe.steps and not stop.asked():
                goal = min(done // every * every + every, recipe.steps)
                history = train(
                    model, lambda wrapped, lab: wrapped(lab), drawing.begin if workers else drawing, len(crops), recipe,
                    where=where, checkpoint=checkpoint, seed=seed, resume=resume, until=goal, metadata=config,
                    stop=stop,
                )  # fmt: skip
                resume, done = True, history.reached
                if done == goal:
                    evaluate()
            stopped = stop.asked()
            _synchronize(where)
    finally:
        drawing.close()
    if not stopped:
        ig.load(result, model)
    model.eval()
    return not stopped


def seconds_until(run: Path, step: int) -> float | None:
    """Return the seconds that the last phase of a run trained for until a step, or None if they are not recorded."""
    path = run / "training.safetensors"
    history = ig.load(path).training["history"] if path.exists() else {}
    times = dict(zip(history.get("step", ()), history.get("clock", ()), strict=False))
    return min((time for at, time in times.items() if at >= step), default=None)


def start_anew(run: Path, stages: Sequence[str]) -> None:
    """Delete the checkpoints and histories of an earlier run; its result stays until there is a new one."""
    for stage in stages:
        for ending in ("safetensors", "json"):
            (run / f"{stage}.{ending}").unlink(missing_ok=True)


class _Validations:
    """History of validation losses, as steps and losses in a file.

    Arguments:
        run: Folder of the run.
        stage: Name of this phase.
        earlier: Names of earlier phases.
        done: Number of completed steps of this phase; later entries of the file are ignored.
    """

    def __init__(self, run: Path, stage: str, earlier: Sequence[str], done: int) -> None:
        self.path = run / f"{stage}.json"
        self.seen = [(step, loss) for step, loss in _read(self.path) if step <= done]
        self.before = [loss for name in earlier for _, loss in _read(run / f"{name}.json")]

    def has(self, step: int) -> bool:
        return step in dict(self.seen)

    def better(self, loss: float) -> bool:
        """True if the loss is below all earlier ones, or the first one."""
        losses = [*self.before, *(loss for _, loss in self.seen)]
        return not losses or loss < min((value for value in losses if math.isfinite(value)), default=math.inf)

    def add(self, step: int, loss: float) -> None:
        """Add a loss and replace the file atomically."""
        self.seen = [look for look in self.seen if look[0] != step] + [(step, loss)]
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(self.seen))
        partial.replace(self.path)


def _read(path: Path) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in json.loads(path.read_text())] if path.exists() else []


def _synchronize(where: Place) -> None:
    if where.world > 1:
        distributed.barrier()


def _held_out(folder: Folder, side: int) -> Tensor:
    """Return the validation photographs and their mirror images."""
    crops = Crops(folder, "val", side)
    lab = torch.stack([crops[index] for index in range(len(crops))])
    return torch.cat((lab, lab.flip(-1)))


@torch.no_grad()
def validate(model: nn.Module, lab: Tensor, where: Place) -> float:
    """Return the loss of held-out photographs, with the same noise every time."""
    model.eval()
    with torch.random.fork_rng(devices=[where.device] if where.device.type == "cuda" else []):
        torch.manual_seed(0)
        losses = [model(part.to(where.device)).item() * len(part) for part in lab.split(64)]
    mean: float = sum(losses) / len(lab)
    return mean
