"""Training a colorizer: the shared loop, stopped now and then to look at the validation split and keep the best."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from trainer import Place, Recipe, train

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
) -> bool:
    """Train a model that returns the loss of photographs (B, 3, side, side); it ends with the weights to use.

    ``<run>/<stage>.safetensors`` is what a stopped run resumes from, ``<run>/model.safetensors`` is the result.

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

    Returns:
        Whether training came to its end; False if it was stopped.
    """
    checkpoint, result, log = (run / name for name in (f"{stage}.safetensors", "model.safetensors", f"{stage}.json"))
    resume = resume and checkpoint.exists()
    looks: list[list[float]] = json.loads(log.read_text()) if resume and log.exists() else []
    crops, held_out = Crops(folder, "train", side), _held_out(folder, side)
    every = max(LEAST, recipe.steps // LOOKS)
    drawing = Drawing(crops, workers)
    done = ig.load(checkpoint).training["step"] if resume else 0
    try:
        while done < recipe.steps:
            goal = min(done // every * every + every, recipe.steps)
            history = train(
                model, lambda wrapped, lab: wrapped(lab), drawing, len(crops), recipe, where=where,
                checkpoint=checkpoint, seed=seed, resume=resume, until=goal, metadata=config,
            )  # fmt: skip
            resume = True
            if history.reached < goal:
                return False  # Ctrl-C
            done = goal
            loss = validate(model, held_out, where)
            if where.rank == 0:
                if not best or not looks or loss < min(value for _, value in looks):
                    ig.save(result, model, metadata=config | {"steps": done, "val": loss})
                looks.append([done, loss])
                log.write_text(json.dumps(looks))
                print(f"step {done}: loss on the validation split {loss:.4f}", flush=True)
    finally:
        drawing.close()
    _meet(where)
    if result.exists():
        ig.load(result, model)
    model.eval()
    return True


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
