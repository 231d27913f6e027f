"""Pretraining of the conditioning network: color classification (Zhang, Isola, Efros, 2016; paper, 4.2)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from process_group import Place
from recipe import Recipe
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.nn import functional

from colorization.condition_net import REDUCTION, ColorClassifier, ConditionNet, color_bins, rebalancing
from colorization.fitting import fit, start_anew
from colorization.metrics import Measured, mean_of, rmse_best
from colorization.photos import Crops, Folder, statistics
from colorization.presets import Preset

STEPS = {"paper": 400_000, "medium": 6000, "quick": 200, "tiny": 50}
MEASURED = 2000  # maximum number of photographs on which color frequencies are counted


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
    colors = Crops(folder, "train", preset.size).spread(MEASURED)[:, 1:]
    weights = rebalancing(colors, color_bins())
    classifier = ColorClassifier(ConditionNet(preset.width), weights).to(where.device)
    batch = min(preset.batch, len(folder.split("train")))
    recipe = Recipe(steps, batch, preset.rate, warmup=min(100, steps // 10), weight_decay=1e-3, clip=1.0)
    if where.rank == 0:
        print(f"{len(weights)} classes of color, weights {weights.min():.2f} to {weights.max():.2f}", flush=True)
        if not resume:
            start_anew(out, ["training"])
    config = {"width": preset.width, "size": preset.size, "statistics": asdict(statistics(folder))}
    if not fit(
        classifier, folder, preset.seen, recipe, out, where=where, config=config, seed=seed, resume=resume,
        workers=workers,
    ):  # fmt: skip
        return None
    path = out / "condition_net.safetensors"
    if where.rank == 0:
        partial = path.with_suffix(".partial")
        save_file({name: value.cpu().contiguous() for name, value in classifier.net.state_dict().items()}, partial)
        partial.replace(path)
        lab = Crops(folder, "val", preset.seen).spread(MEASURED)
        for name, error in errors_of(classifier, lab).items():
            print(f"{name}: RMSE {error} ab on {len(lab)} photographs")
        network, constant = losses_of(classifier, lab, colors)
        print(f"loss {network:.3f}; of the best guess that ignores the lightness {constant:.3f}")
        print(path)
    if where.world > 1:
        distributed.barrier()  # the others read the file
    return path


def errors_of(classifier: ColorClassifier, lab: Tensor) -> dict[str, Measured]:
    """Return the errors, in units of a and b, of the network's colors for photographs, and of gray pictures.

    The annealed mean is what the published network colors pictures with. It is too saturated for a small error,
    because the loss weights rare colors more; the mean without these weights is the network's best guess.
    """
    device = classifier.bins.device
    guesses = {
        "annealed mean": classifier.colors,
        "mean without the weights": classifier.expected_colors,
    }
    errors = {}
    for name, guess in guesses.items():
        colors = torch.cat([guess(part[:, :1].to(device)).cpu() for part in lab.split(8)])
        truth = functional.adaptive_avg_pool2d(lab[:, 1:], colors.shape[-1])
        errors[name] = mean_of(rmse_best(colors[None], truth))
    return errors | {"gray": mean_of(rmse_best(torch.zeros_like(truth)[None], truth))}


@torch.no_grad()
def losses_of(classifier: ColorClassifier, lab: Tensor, colors: Tensor) -> tuple[float, float]:
    """Return the loss for photographs, and that of the best constant guess from other colors (B, 2, s, s)."""
    device = classifier.bins.device
    constant, losses = classifier.best_constant(colors.to(device)), []
    for part in lab.to(device).split(8):
        ab = functional.adaptive_avg_pool2d(part[:, 1:], part.shape[-1] // REDUCTION)
        guess = constant.expand(len(part), -1, *ab.shape[2:])
        losses.append(torch.stack((classifier(part), classifier.cross_entropy(guess, ab))) * len(part))
    network, ignorant = (torch.stack(losses).sum(0) / len(lab)).tolist()
    return network, ignorant
