"""Training a colorizer: the shared loop, stopped now and then to look at the validation split and keep the best."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from progress import Stop
from torch import Tensor, distributed, nn
from trainer import Place, Recipe, check_batch, resumable, together, train

import invgraph as ig
from colorization.photos import Crops, Drawing, Folder

LOOKS, LEAST = 20, 50  # how often a run looks at the validation split, and the fewest steps between


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

    ``<run>/<stage>.safetensors`` is what a stopped run resumes from, ``<run>/<stage>.json`` what it saw when it looked
    at the validation split, ``<run>/model.safetensors`` is the result. They are written in this order, so that a run
    killed in between looks again when it is resumed.

    Arguments:
        model: on its device.
        folder: the photographs.
        side: pixels of a crop.
        recipe: how to train.
        run: folder of the run.
        where: this process's place.
        config: goes into the result, for whoever loads it.
        best: keep the weights with the lowest loss on the validation split, else the last ones.
        seed: of everything random.
        resume: go on where the run was stopped.
        workers: processes that cut crops.
        stage: name of this phase of training.
        earlier: names of the phases before: the result is the best of all of them.

    Returns:
        Whether training came to its end; False if it was stopped.
    """
    checkpoint, result = run / f"{stage}.safetensors", run / "model.safetensors"
    crops, held_out = Crops(folder, "train", side), _held_out(folder, side)
    check_batch(recipe, len(crops), where)
    every = max(LEAST, recipe.steps // LOOKS)
    resume = resume and checkpoint.exists()
    done = resumable(checkpoint, recipe, seed)["step"] if resume else 0
    looks = _Looks(run, stage, earlier, done)
    _meet(where)  # no process reads what the first one already writes anew

    def look() -> None:
        loss = validate(model, held_out, where)
        if where.rank == 0:
            if not best or not result.exists() or looks.better(loss):
                ig.save(result, model, metadata=config | {"steps": done, "val": loss})
            looks.add(done, loss)
            print(f"step {done}: loss on the validation split {loss:.4f}", flush=True)

    drawing = Drawing(crops, workers)
    try:
        with Stop(where.device) as stop, together(where, checkpoint):
            due = done > 0 and (done % every == 0 or done == recipe.steps)
            if due and not (looks.has(done) and result.exists()):
                ig.load(checkpoint, model)
                look()
            while done < recipe.steps and not stop.asked():
                goal = min(done // every * every + every, recipe.steps)
                history = train(
                    model, lambda wrapped, lab: wrapped(lab), drawing.begin if workers else drawing, len(crops), recipe,
                    where=where, checkpoint=checkpoint, seed=seed, resume=resume, until=goal, metadata=config,
                    stop=stop,
                )  # fmt: skip
                resume, done = True, history.reached
                if done == goal:
                    look()
            stopped = stop.asked()
            _meet(where)
    finally:
        drawing.close()
    if not stopped:
        ig.load(result, model)
    model.eval()
    return not stopped


def start_anew(run: Path, stages: Sequence[str]) -> None:
    """Take away what earlier phases of a run would resume from; the result stays until there is another."""
    for stage in stages:
        for ending in ("safetensors", "json"):
            (run / f"{stage}.{ending}").unlink(missing_ok=True)


class _Looks:
    """What a run saw at each look at the validation split, as steps and losses in a file.

    Arguments:
        run: folder of the run.
        stage: name of this phase.
        earlier: names of the phases before.
        done: steps of this phase that are done; of others nothing is known.
    """

    def __init__(self, run: Path, stage: str, earlier: Sequence[str], done: int) -> None:
        self.path = run / f"{stage}.json"
        self.seen = [(step, loss) for step, loss in _read(self.path) if step <= done]
        self.before = [loss for name in earlier for _, loss in _read(run / f"{name}.json")]

    def has(self, step: int) -> bool:
        return step in dict(self.seen)

    def better(self, loss: float) -> bool:
        """Whether none was as low; the first one is, whatever it is."""
        losses = [*self.before, *(loss for _, loss in self.seen)]
        return not losses or loss < min((value for value in losses if math.isfinite(value)), default=math.inf)

    def add(self, step: int, loss: float) -> None:
        """Replace the file by one with this look, whole."""
        self.seen = [look for look in self.seen if look[0] != step] + [(step, loss)]
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(self.seen))
        partial.replace(self.path)


def _read(path: Path) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in json.loads(path.read_text())] if path.exists() else []


def _meet(where: Place) -> None:
    if where.world > 1:
        distributed.barrier()


def _held_out(folder: Folder, side: int) -> Tensor:
    """The validation photographs and their mirror images."""
    crops = Crops(folder, "val", side)
    lab = torch.stack([crops[index] for index in range(len(crops))])
    return torch.cat((lab, lab.flip(-1)))


@torch.no_grad()
def validate(model: nn.Module, lab: Tensor, where: Place) -> float:
    """The loss of held-out photographs, with the same noise every time."""
    model.eval()
    with torch.random.fork_rng(devices=[where.device] if where.device.type == "cuda" else []):
        torch.manual_seed(0)
        losses = [model(part.to(where.device)).item() * len(part) for part in lab.split(64)]
    mean: float = sum(losses) / len(lab)
    return mean
