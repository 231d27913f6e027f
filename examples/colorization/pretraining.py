"""Pretraining of the conditioning network: colour classification (Zhang, Isola, Efros, 2016; paper, 4.2)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed
from trainer import Place, Recipe

from colorization.condition_net import ColourClassifier, ConditionNet, colour_bins, rebalancing
from colorization.fitting import fit, start_anew
from colorization.metrics import mean_of, rmse_best
from colorization.photos import Crops, Folder
from colorization.presets import Preset

STEPS = {"paper": 400_000, "medium": 6000, "quick": 200, "tiny": 50}
MEASURED = 2000  # maximum number of photographs on which colour frequencies are counted


def pretrain(
    preset: Preset, steps: int, folder: Folder, out: Path, *, where: Place, seed: int, resume: bool, workers: int
) -> Path | None:
    """Train a conditioning network, print its error, and write ``<out>/condition_net.safetensors``.

    Arguments:
        preset: Preset of the ImageNet model.
        steps: Number of training steps.
        folder: Photographs.
        out: Folder of the run.
        where: Device and rank of this process.
        seed: Seed of all random numbers.
        resume: If True, resume a stopped run.
        workers: Number of processes that cut crops.

    Returns:
        Path of the file, or None if the run was stopped.
    """
    torch.manual_seed(seed)
    colours = Crops(folder, "train", preset.size).spread(MEASURED)[:, 1:]
    weights = rebalancing(colours, colour_bins())
    classifier = ColourClassifier(ConditionNet(preset.width), weights).to(where.device)
    batch = min(preset.batch, len(folder.split("train")))
    recipe = Recipe(steps, batch, preset.rate, warmup=min(100, steps // 10), weight_decay=1e-3, clip=1.0)
    if where.rank == 0:
        print(f"{len(weights)} classes of colour, weights {weights.min():.2f} to {weights.max():.2f}", flush=True)
        if not resume:
            start_anew(out, ["training"])
    if not fit(
        classifier, folder, preset.seen, recipe, out, where=where, config={"width": preset.width},
        seed=seed, resume=resume, workers=workers,
    ):  # fmt: skip
        return None
    path = out / "condition_net.safetensors"
    if where.rank == 0:
        partial = path.with_suffix(".partial")
        save_file({name: value.cpu().contiguous() for name, value in classifier.net.state_dict().items()}, partial)
        partial.replace(path)
        _print_errors(classifier, folder, preset.seen)
        print(path)
    if where.world > 1:
        distributed.barrier()  # the others read the file
    return path


def _print_errors(classifier: ColourClassifier, folder: Folder, side: int) -> None:
    """Print the error on the validation split, and that of grey pictures."""
    lab = Crops(folder, "val", side).spread(MEASURED)
    device = classifier.bins.device
    guess = torch.cat([classifier.colours(part[:, :1].to(device)).cpu() for part in lab.split(8)])
    truth: Tensor = torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], guess.shape[-1])
    for name, colours in (("annealed mean", guess), ("grey", torch.zeros_like(guess))):
        print(f"{name}: RMSE {mean_of(rmse_best(colours[None], truth))} ab on {len(lab)} photographs")
