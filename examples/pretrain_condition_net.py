r"""The conditioning network's own task: which colour has each pixel? (Zhang, Isola, Efros, 2016; paper, 4.2)

    python examples/pretrain_condition_net.py --data DIR --preset medium
    python examples/imagenet_cinn.py train --data DIR --preset medium \
        --condition-net runs/condition_net/condition_net.safetensors

Colours are cut into classes of ten by ten units of a and b, each pixel softly assigned to its five nearest; rare
colours count for more. The width of the network is that of the ImageNet model's preset. Published weights of the same
network need no pretraining: give their file to ``--condition-net``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from colorization.condition_net import ColourClassifier, ConditionNet, colour_bins, rebalancing
from colorization.fitting import fit
from colorization.metrics import mean_of, rmse_best
from colorization.photos import EMBEDDED, Crops, Folder, open_folder
from imagenet_cinn import PRESETS
from safetensors.torch import save_file
from torch import Tensor
from trainer import Place, Recipe, place

STEPS = {"paper": 400_000, "medium": 6000, "quick": 200, "tiny": 50}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, tell the error of the annealed mean, write the condition net."""
    parser = argparse.ArgumentParser(
        description="Pretrain the conditioning network of the ImageNet colorization model."
    )
    parser.add_argument("--data", type=Path, default=EMBEDDED, help="folder of photographs")
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="of examples/imagenet_cinn.py")
    parser.add_argument("--out", type=Path, default=Path("runs") / "condition_net", help="folder of the run")
    parser.add_argument("--steps", type=int, help="default: by preset")
    parser.add_argument("--resume", action="store_true", help="go on with what was stopped")
    parser.add_argument("--workers", type=int, default=0, help="processes that cut crops")
    parser.add_argument("--device", help="such as cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    with place(options.device) as where:
        return _pretrain(options, where)


def _pretrain(options: argparse.Namespace, where: Place) -> int:
    preset, folder = PRESETS[options.preset], open_folder(options.data)
    steps = options.steps or STEPS[options.preset]
    torch.manual_seed(options.seed)
    weights = rebalancing(_colours(folder, "train", preset.size), colour_bins())
    classifier = ColourClassifier(ConditionNet(preset.width), weights).to(where.device)
    batch = min(preset.batch, len(folder.split("train")))
    recipe = Recipe(steps, batch, preset.rate, warmup=min(100, steps // 10), weight_decay=1e-3, clip=1.0)
    if where.rank == 0:
        print(folder.report())
        print(f"{len(weights)} classes of colour, weights {weights.min():.2f} to {weights.max():.2f}", flush=True)
    ended = fit(
        classifier, folder, preset.seen, recipe, options.out, where=where, config={"width": preset.width},
        seed=options.seed, resume=options.resume, workers=options.workers,
    )  # fmt: skip
    if not ended:
        print("stopped; the same command with --resume goes on", file=sys.stderr)
        return 130
    if where.rank == 0:
        path = options.out / "condition_net.safetensors"
        save_file({name: value.cpu().contiguous() for name, value in classifier.net.state_dict().items()}, path)
        _tell(classifier, folder, preset.seen)
        print(path)
    return 0


def _colours(folder: Folder, split: str, size: int) -> Tensor:
    """Colours (B, 2, size, size) of at most 2,000 photographs."""
    crops = Crops(folder, split, size)
    step = max(1, len(crops) // 2000)
    return torch.stack([crops[index][1:] for index in range(0, len(crops), step)])


def _tell(classifier: ColourClassifier, folder: Folder, side: int) -> None:
    """The error on the validation split beside that of no colour."""
    crops = Crops(folder, "val", side)
    lab = torch.stack([crops[index] for index in range(len(crops))])
    device = classifier.bins.device
    guess = torch.cat([classifier.colours(part[:, :1].to(device)).cpu() for part in lab.split(8)])
    truth = torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], guess.shape[-1])
    for name, colours in (("annealed mean", guess), ("grey", torch.zeros_like(guess))):
        print(f"{name}: RMSE {mean_of(rmse_best(colours[None], truth))} ab on {len(lab)} photographs")


if __name__ == "__main__":
    sys.exit(main())
