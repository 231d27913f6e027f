"""The paper's conditional model of MNIST: train it, measure it, draw its digits.

    python examples/mnist_cinn.py                                  # train the quick preset, then all below
    python examples/mnist_cinn.py --preset short                   # a model of the paper's size, trained briefly
    python examples/mnist_cinn.py --preset paper --device cuda     # the paper's model, trained for as long
    python examples/mnist_cinn.py --resume                         # resume a run that was stopped
    python examples/mnist_cinn.py draw                             # of your run, or else the included model
    python examples/mnist_cinn.py evaluate --checkpoint runs/mnist/model.safetensors
    torchrun --nproc-per-node 4 examples/mnist_cinn.py             # in several processes

L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019, section 4.1,
https://arxiv.org/abs/1907.02392
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import weights
from digits import data, judge, measure
from digits.idx import IDXError
from options import above_zero, count, positive, prepare_folder
from process_group import DivergedError, place
from recipe import Recipe
from torch import Tensor, nn
from trainer import History, train

import invgraph as ig


@dataclass(frozen=True)
class Preset:
    """A model and how it is trained; noise: standard deviation in units of the pixel range."""

    blocks: int
    hidden: int
    clamp: float
    noise: float
    recipe: Recipe


RUN = Path("runs/mnist")

PRESETS = {
    # a minute on two CPU cores, three on slow ones
    "quick": Preset(
        blocks=8, hidden=256, clamp=1.0, noise=0.15,
        recipe=Recipe(steps=1500, batch=128, rate=1.5e-3, warmup=100, beta2=0.99, weight_decay=1e-5),
    ),
    # the paper's model with the recipe of the quick one: a quarter of an hour on an idle core
    "short": Preset(
        blocks=24, hidden=512, clamp=1.0, noise=0.15,
        recipe=Recipe(steps=3000, batch=128, rate=1.2e-3, warmup=100, beta2=0.99, weight_decay=1e-5),
    ),
    # the paper's model: 60 epochs, for a GPU
    "paper": Preset(
        blocks=24, hidden=512, clamp=1.0, noise=0.15,
        recipe=Recipe(steps=14_040, batch=256, rate=5e-4, schedule="drops", weight_decay=1e-5),
    ),
    # seconds, for tests
    "tiny": Preset(
        blocks=2, hidden=8, clamp=1.0, noise=0.15,
        recipe=Recipe(steps=20, batch=16, rate=1e-3, warmup=2, average=0.9),
    ),
}  # fmt: skip


def build(blocks: int, hidden: int, clamp: float) -> ig.Flow:
    """The model: couplings of the flattened picture, each conditioned on the digit, permutations between them."""
    image = ig.InputNode(1, 28, 28, name="image")
    digit = ig.ConditionNode(10, name="digit")
    h = ig.Node(image, ig.Flatten, name="flatten")
    for k in range(blocks):
        h = ig.Node(h, ig.Permute, {"seed": k}, name=f"permute_{k}")
        coupling = {"transform": ig.Affine(clamp=clamp), "subnet": ig.nets.MLP(hidden=hidden)}
        h = ig.Node(h, ig.Coupling, coupling, conditions=digit, name=f"coupling_{k}")
    return ig.Flow(ig.Graph(inputs=image, outputs=h, conditions=digit))


def loss(flow: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """The paper's Eq. 6 for each dimension; through ``forward``, so that DDP sees it."""
    log_prob: Tensor = flow(x, c)
    return -log_prob.mean() / measure.DIMS - measure.CONSTANT


@dataclass(frozen=True)
class Noisy:
    """Draws batches: the training digits with fresh noise, and what they are."""

    pixels: Tensor
    conditions: Tensor
    noise: float

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return measure.noisy(self.pixels[rows], self.noise), self.conditions[rows]


def train_command(args: argparse.Namespace) -> None:
    preset = PRESETS[args.preset]
    preset = preset if args.noise is None else replace(preset, noise=args.noise)
    recipe = replace(preset.recipe, autocast=args.autocast, steps=args.steps or preset.recipe.steps)
    recipe = replace(recipe, warmup=min(recipe.warmup, recipe.steps // 4))
    checkpoint = args.out / "model.safetensors"
    if args.resume and not checkpoint.exists():
        raise SystemExit(f"{checkpoint}: there is nothing to resume; start without --resume")
    prepare_folder(args.out)
    with place(args.device, args.threads) as where:
        torch.manual_seed(args.seed)
        flow = build(preset.blocks, preset.hidden, preset.clamp).to(where.device)
        if where.rank == 0:
            count = sum(weight.numel() for weight in flow.parameters())
            print(f"preset {args.preset}: {preset.blocks} blocks, {preset.hidden} hidden, {count:,} parameters")
            print(f"{recipe.steps:,} steps of {recipe.batch} digits on {where.device}, processes: {where.world}")
        digits = data.load("train")
        draw = Noisy(digits.pixels, data.condition(digits.labels), preset.noise)
        metadata = {"example": "mnist_cinn", "preset": args.preset, "noise": preset.noise,
                    "model": {"blocks": preset.blocks, "hidden": preset.hidden, "clamp": preset.clamp}}  # fmt: skip
        history = train(flow, loss, draw, len(digits.labels), recipe, where=where, checkpoint=checkpoint,
                        seed=args.seed, resume=args.resume, metadata=metadata)  # fmt: skip
        if where.rank > 0:
            return
    if not history.finished:
        given = [word for word in sys.argv[1:] if word != "--resume"]
        command = " ".join(["python", sys.argv[0], *given, "--resume"])
        print(f"stopped; everything so far is in {checkpoint}; continue with\n    {command}")
        raise SystemExit(130)
    finish(flow, preset.noise, history, args.out, {"preset": args.preset, "seed": args.seed, **asdict(preset)})


def finish(flow: ig.Flow, noise: float, history: History, out: Path, settings: dict[str, Any]) -> None:
    """Measure, draw, and say where everything is."""
    began = time.monotonic()
    figures = measure.evaluate(flow, noise)
    print(measure.as_text(figures))
    trained = {"steps": history.step[-1] if history.step else 0, "seconds": round(history.seconds, 1)}
    versions = {"invgraph": ig.__version__, "torch": torch.__version__}
    write_json(out / "metrics.json", {**figures, "settings": settings, "training": trained, "versions": versions})
    written = draw_pictures(flow, noise, history, figures, out)
    print(f"trained for {history.seconds:.0f} s, measured and drawn in {time.monotonic() - began:.0f} s; in {out}:")
    print("    " + "  ".join(path.name for path in (out / "model.safetensors", out / "metrics.json", *written)))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def draw_pictures(
    flow: ig.Flow, noise: float, history: History, figures: dict[str, Any] | None, out: Path
) -> list[Path]:
    """The pictures, or word of what is missing for them."""
    try:
        from digits.pictures import draw_all
    except ImportError as error:
        print(f'no pictures: {error.name} is not installed; pip install -e ".[examples]", then draw')
        return []
    return draw_all(flow, noise, history, figures, out)


def open_checkpoint(path: Path, device: str | None) -> tuple[ig.Flow, dict[str, Any], History]:
    """A trained model, what its run wrote about it, and its history."""
    metadata = ig.load(path).metadata
    if metadata.get("example") != "mnist_cinn":
        raise SystemExit(f"{path}\n  is a checkpoint, but not of this example: take one that mnist_cinn.py wrote")
    flow = build(**metadata["model"])
    state = weights.load_weights(path, flow).training or metadata  # a published model has its history in the metadata
    with place(device) as where:
        return flow.to(where.device).eval(), metadata, History(**state.get("history", {}))


def chosen_files(args: argparse.Namespace) -> tuple[Path, Path]:
    """The checkpoint, and the folder of what is written."""
    checkpoint = args.checkpoint or weights.trained_or_own(RUN / "model.safetensors", "mnist_cinn")
    return checkpoint, args.out or (RUN if checkpoint.parent == weights.FOLDER else checkpoint.parent)


def evaluate_command(args: argparse.Namespace) -> None:
    checkpoint, out = chosen_files(args)
    flow, metadata, history = open_checkpoint(checkpoint, args.device)
    figures = measure.evaluate(flow, metadata["noise"], seed=args.seed)
    print(measure.as_text(figures))
    trained = {"steps": history.step[-1] if history.step else 0, "seconds": round(history.seconds, 1)}
    write_json(out / "metrics.json", {**figures, "settings": metadata, "training": trained})
    print(f"written to {out / 'metrics.json'}")


def draw_command(args: argparse.Namespace) -> None:
    # Seconds of work: on a busy machine, waiting for a second thread can take minutes.
    torch.set_num_threads(1)
    checkpoint, out = chosen_files(args)
    flow, metadata, history = open_checkpoint(checkpoint, args.device)
    measured = checkpoint.parent / ("mnist_cinn.json" if checkpoint.parent == weights.FOLDER else "metrics.json")
    figures = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else None
    for path in draw_pictures(flow, metadata["noise"], history, figures, out):
        print(path)


def judge_command(args: argparse.Namespace) -> None:
    network = judge.train(seed=args.seed)
    digits = data.load("test")
    generator = torch.Generator().manual_seed(0)
    for noise in (0.0, 0.15):
        hits = judge.accuracy(network, measure.noisy(digits.pixels, noise, generator), digits.labels)
        print(f"recognizes {hits:.2%} of the real test digits with noise {noise:g} of the pixel range")
    judge.save(network)
    print(f"written to {judge.WEIGHTS}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", help="device, such as cpu or cuda; default: a GPU if there is one")
    common.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    trains = commands.add_parser(
        "train", parents=[common], help="train a model, then evaluate it and draw its pictures (default)"
    )
    trains.add_argument("--preset", choices=list(PRESETS), default="quick")
    trains.add_argument("--steps", type=positive, help="number of training steps; default: that of the preset")
    trains.add_argument(
        "--noise", type=above_zero, help="noise on the pixels, which go from 0 to 1; the paper's text has 0.02"
    )
    trains.add_argument("--out", type=Path, default=RUN, help="folder for all files that are written")
    trains.add_argument("--resume", action="store_true", help="resume from the checkpoint in --out")
    trains.add_argument("--threads", type=count, default=0, help="number of CPU threads; default: the fastest")
    trains.add_argument("--autocast", action="store_true", help="run the subnets in bfloat16")
    trains.set_defaults(run=train_command)
    for name, run, summary in (
        ("evaluate", evaluate_command, "measure a trained model again"),
        ("draw", draw_command, "draw the pictures again"),
    ):
        other = commands.add_parser(name, parents=[common], help=summary)
        other.add_argument(
            "--checkpoint", type=Path, help="checkpoint; default: that of your run, or else the included model"
        )
        other.add_argument(
            "--out", type=Path, help="folder for the results; default: that of the checkpoint, or runs/mnist"
        )
        other.set_defaults(run=run)
    judges = commands.add_parser(
        "judge", parents=[common], help="train the classifier that judges generated digits again"
    )
    judges.set_defaults(run=judge_command)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["train", *arguments]
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        args.run(args)
    except (IDXError, ig.CheckpointError, DivergedError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
