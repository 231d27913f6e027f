"""Commands of both colorization examples: train, colorize, table, pictures, and all of them."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from options import count, positive, prepare_folder
from process_group import DivergedError, Place, place
from recipe import Recipe
from safetensors import SafetensorError
from weights import FOLDER as INCLUDED_FOLDER
from weights import trained_or_own

import invgraph as ig
from colorization.colorizer import Colorizer, Config, load_colorizer
from colorization.condition_net import ConditionNet, load_condition_net
from colorization.features import find_viewer
from colorization.fitting import fit, seconds_until, start_anew
from colorization.infer import colorize, distinct_names, write_colorizations
from colorization.photos import EMBEDDED, Crops, Folder, UnusableError, open_folder, read_image, statistics
from colorization.pictures import Gallery
from colorization.presets import Preset
from colorization.pretraining import pretrain
from colorization.table import NAMES, HeldOut, as_text, evaluate, round_trip, write_table

KINDS = ("cinn", "unconditional", "raw", "cnn", "cvae", "cgan", "colorgan")
BASELINE_KINDS = ("cvae", "cgan", "colorgan", "cnn")  # in the order of the picture that compares them
ADVERSARIAL = ("cgan", "colorgan")  # their averaged weights would be those of no player
PHASE_SEED = 1000  # between the seeds of the two phases
STOPPED = "stopped; run the same command with --resume to continue"
ERRORS = (ig.CheckpointError, DivergedError, OSError, SafetensorError, ValueError, pickle.UnpicklingError)
"""Errors in files, folders and options, which are printed without a traceback."""


def _no_condition_net(colorizer: Colorizer) -> ConditionNet | None:
    return None


@dataclass(frozen=True)
class Example:
    """Differences between the examples.

    Arguments:
        name: Name of the folder of the runs.
        description: What ``--help`` begins with.
        presets: Presets, by name.
        build: Function that builds a colorizer from its config.
        condition_net: Function that returns the part of a colorizer that is frozen in the first phase of training.
            Default: none.
        pretraining: Number of steps to pretrain that part before the first phase, by name of the preset. Default: no
            pretraining.
    """

    name: str
    description: str
    presets: Mapping[str, Preset]
    build: Callable[[Config], Colorizer]
    condition_net: Callable[[Colorizer], ConditionNet | None] = _no_condition_net
    pretraining: Mapping[str, int] = field(default_factory=dict)


def main(example: Example, arguments: Sequence[str] | None = None) -> int:
    """Run the command given by the arguments, or all commands if there is none."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["all", *given]
    options = _parser(example).parse_args(given)
    command: Callable[[Example, argparse.Namespace, Place], int] = options.command
    try:
        with place(options.device, options.threads) as where:
            return command(example, options, where)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1


def _parser(example: Example) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", help="device, such as cpu or cuda; default: a GPU if there is one")
    common.add_argument("--threads", type=count, default=0, help="number of CPU threads; default: the fastest")
    common.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--data", type=Path, default=EMBEDDED, help="folder of photographs; default: the included ones")
    runs.add_argument("--edge", type=positive, default=256, help="short side of the cached photographs, in pixels")
    runs.add_argument("--out", type=Path, default=Path("runs") / example.name, help="folder of the runs")
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--preset", choices=example.presets, default="quick")
    training.add_argument("--kinds", nargs="+", choices=KINDS, default=None, help="models to train; default: the cINN")
    training.add_argument("--steps", type=positive, help="number of training steps; default: that of the preset")
    training.add_argument("--resume", action="store_true", help="resume what was stopped, skip what is finished")
    training.add_argument("--workers", type=count, default=0, help="number of processes that prepare crops")
    training.add_argument("--condition-net", type=Path, help="pretrained weights of the conditioning network, or 'none'"
                          "; default: the included ones, if they fit the preset and the photographs")  # fmt: skip
    measuring = argparse.ArgumentParser(add_help=False)
    measuring.add_argument("--split", default="test", choices=("val", "test"), help="photographs to measure and show")
    measuring.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="temperature of the pictures, and of an additional row for the cINN",
    )
    measuring.add_argument(
        "--viewer", help="network whose features give the Frechet distance, a file; default: EfficientNet-Lite0"
    )
    measuring.add_argument(
        "--classifier", help="network whose class scores give the agreement, a file; default: the same"
    )

    show_as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=example.description, formatter_class=show_as_written)
    commands = parser.add_subparsers(title="commands", required=True)
    everything = [common, runs, training, measuring]
    added = commands.add_parser("all", parents=everything, help="train all models, then table and pictures (default)")
    added.set_defaults(command=run_all)
    added = commands.add_parser("train", parents=[common, runs, training], help="train models")
    added.set_defaults(command=run_train)
    added = commands.add_parser("table", parents=[common, runs, measuring], help="print the metrics of all runs so far")
    added.set_defaults(command=run_table)
    added = commands.add_parser("pictures", parents=[common, runs, measuring], help="draw the pictures of the cINN")
    added.set_defaults(command=run_pictures)
    added = commands.add_parser("colorize", parents=[common], help="colorize images")
    added.add_argument("images", type=Path, nargs="+", help="after a checkpoint, FILE.safetensors; default: that of "
                       "your run, or else the included model")  # fmt: skip
    added.add_argument("-n", type=int, default=4, help="number of colorizations of each image")
    added.add_argument("--temperature", type=float, default=1.0)
    added.add_argument("--upsampling", choices=("joint", "bicubic"), default="joint")
    added.add_argument("--out", type=Path, default=Path("colorized"), help="folder for the PNG files")
    added.set_defaults(command=run_colorize)
    return parser


def run_all(example: Example, options: argparse.Namespace, where: Place) -> int:
    """Pretrain the conditioning network if the example has one, train every kind, write table and pictures."""
    options.kinds = options.kinds or list(KINDS)
    folder = _open(example, options, where)
    for split in ("train", "val", options.split):
        Crops(folder, split, 1)  # raises an error now instead of after the training
    prepare_folder(options.out)
    if example.pretraining and _condition_net_file(example, options, where) is None:
        options.condition_net = _pretrain(example, folder, options, where)
        if options.condition_net is None:
            print(STOPPED, file=sys.stderr)
            return 130
    return run_train(example, options, where) or run_table(example, options, where) or run_pictures(
        example, options, where)  # fmt: skip


def _preset(example: Example, options: argparse.Namespace) -> Preset:
    preset = example.presets[options.preset]
    if not options.steps:
        return preset
    return replace(preset, steps=options.steps, first=round(preset.first * options.steps / preset.steps))


def _condition_net_file(example: Example, options: argparse.Namespace, where: Place) -> Path | None:
    """Return the file of pretrained weights: the given one, or else the included one.

    The included weights come from the included photographs, so they are used with these only: others deserve a
    conditioning network of their own.
    """
    if options.condition_net is not None or not example.pretraining:
        return None if options.condition_net == Path("none") else options.condition_net
    path = INCLUDED_FOLDER / "condition_net.safetensors"
    own = (options.out / "condition_net" / path.name).exists()
    if own or options.data != EMBEDDED or not path.exists():
        return None
    if ig.load(path).metadata["width"] != _preset(example, options).width:
        return None
    if where.rank == 0:
        print(f"conditioning network: {path.name} of the repository, described in condition_net.rst beside it; "
              "--condition-net none trains it anew")  # fmt: skip
    return path


def _pretrain(example: Example, folder: Folder, options: argparse.Namespace, where: Place) -> Path | None:
    """Train the conditioning network, unless it exists already and the run is resumed; return its file."""
    out = options.out / "condition_net"
    path: Path = out / "condition_net.safetensors"
    if options.resume and path.exists():
        return path
    preset, steps = _preset(example, options), example.pretraining[options.preset]
    steps = max(1, round(steps * preset.steps / example.presets[options.preset].steps))
    if where.rank == 0:
        print("training the conditioning network on its own task", flush=True)
        path.unlink(missing_ok=True)
    return pretrain(
        preset, steps, folder, out, where=where, seed=options.seed, resume=options.resume, workers=options.workers
    )


def run_train(example: Example, options: argparse.Namespace, where: Place) -> int:
    """Train the requested kinds, one after the other."""
    folder, preset = _open(example, options, where), _preset(example, options)
    options.condition_net = _condition_net_file(example, options, where)
    kinds, measured = options.kinds or ["cinn"], asdict(statistics(folder))
    configs = {
        kind: {"example": example.name, "kind": kind, "preset": asdict(preset), "statistics": measured}
        for kind in kinds
    }
    others = {kind: ig.load(path).metadata for kind, path in _found(options.out).items() if kind not in kinds}
    _require_comparable(others | configs, options.out)
    prepare_folder(options.out)
    for kind, config in configs.items():
        if where.rank == 0:
            print(f"training {NAMES[kind]}", flush=True)
        torch.manual_seed(options.seed)
        colorizer = example.build(config).to(where.device)
        if not _train_phases(example, colorizer, folder, preset, options, where):
            print(STOPPED, file=sys.stderr)
            return 130
    return 0


def _require_comparable(configs: Mapping[str, Config], out: Path) -> None:
    """Raise ValueError if runs of several sizes share a folder: its table and pictures would mix them."""
    presets = {kind: Preset(**config["preset"]) for kind, config in configs.items()}
    sizes = {kind: f"{kind} {p.size} of {p.seen} pixels, noise {p.noise:g}" for kind, p in presets.items()}
    if len({size.partition(" ")[2] for size in sizes.values()}) > 1:
        found = "; ".join(sizes.values())
        raise ValueError(f"{out} would hold runs of different sizes ({found}): give each preset an --out of its own")


def _train_phases(
    example: Example, colorizer: Colorizer, folder: Folder, preset: Preset, options: argparse.Namespace, where: Place
) -> bool:
    """Train with the conditioning network frozen, if its weights are given, and then all weights."""
    kind = colorizer.config["kind"]
    run, net = options.out / kind, example.condition_net(colorizer)
    if net is not None and options.condition_net:
        load_condition_net(net, options.condition_net)
    frozen = preset.first if net is not None and options.condition_net else 0
    phases = [("frozen", frozen, net), ("training", preset.steps - frozen, None)]
    if where.rank == 0 and not options.resume:
        start_anew(run, [stage for stage, _, _ in phases])
    for number, (stage, steps, frozen_net) in enumerate(phases):
        if not steps:
            continue
        recipe = Recipe(
            steps, min(preset.batch, len(folder.split("train"))), preset.rate, warmup=min(100, steps // 10),
            schedule=preset.schedule, weight_decay=1e-5, clip=1.0,
            average=0.0 if kind in ADVERSARIAL else preset.average,
        )  # fmt: skip
        if frozen_net is not None:
            frozen_net.freeze()
        ended = fit(
            colorizer, folder, preset.seen, recipe, run, where=where, config=colorizer.config, best=kind != "cgan",
            seed=options.seed + number * PHASE_SEED, resume=options.resume, workers=options.workers, stage=stage,
            earlier=["frozen"] if frozen and frozen_net is None else [],
        )  # fmt: skip
        if frozen_net is not None:
            frozen_net.freeze(False)
        if not ended:
            return False
    return True


def run_table(example: Example, options: argparse.Namespace, where: Place) -> int:
    """Measure all runs, print the table, and write it as JSON and RST, in one process."""
    found = _found(options.out)
    if where.rank > 0:
        return 0
    if not found:
        print(f"no runs in {options.out}: train first", file=sys.stderr)
        return 1
    colorizers = {kind: _load(example, path, where) for kind, path in found.items()}
    _require_comparable({kind: colorizer.config for kind, colorizer in colorizers.items()}, options.out)
    folder = _open(example, options, where)
    first = next(iter(colorizers.values()))
    viewer = find_viewer(options.viewer, options.classifier)
    held_out = HeldOut(folder, options.split, Preset(**first.config["preset"]).seen, viewer)
    rows = {kind: evaluate(kind, first, held_out, seed=options.seed) for kind in ("truth", "gray")}
    for kind, colorizer in colorizers.items():
        rows[kind] = evaluate(kind, colorizer, held_out, seed=options.seed)
        if kind == "cinn" and options.temperature != 1:
            cooler = evaluate(kind, colorizer, held_out, seed=options.seed, temperature=options.temperature)
            rows[f"{kind} {options.temperature:g}"] = cooler
    trips = {
        kind: round_trip(colorizer.model, *colorizer.prepare(held_out.lab))
        for kind, colorizer in colorizers.items()
        if isinstance(colorizer.model, ig.Flow)
    }
    seconds = {kind: seconds_until(options.out / kind, model.config["steps"]) for kind, model in colorizers.items()}
    about = {
        "seconds": {kind: round(value, 1) for kind, value in seconds.items() if value is not None},
        "example": example.name, "split": options.split, "photographs": len(held_out.lab), "seed": options.seed,
        "viewer": viewer.name if viewer else None, "round_trip": trips,
        "runs": {kind: colorizer.config for kind, colorizer in colorizers.items()},
    }  # fmt: skip
    write_table(rows, about, options.out)
    print(as_text(rows))
    for kind, value in about["seconds"].items():
        print(f"{NAMES[kind]}: trained for {value:.0f} s until the weights that were kept")
    for kind, error in trips.items():
        print(f"{NAMES[kind]}: largest error of a round trip of normalized colors {error:.1e}")
    left_out = [name for key, name in VIEWED_BY.items() if key not in rows["truth"]]
    if left_out:
        print(f"omitted, because there is no network that evaluates pictures: {', '.join(left_out)}; {HOW_TO_VIEW}",
              file=sys.stderr)  # fmt: skip
    return 0


VIEWED_BY = {"frechet": "Frechet distance (--viewer)", "top5": "accuracy (--classifier)"}
HOW_TO_VIEW = 'pip install -e ".[examples,metrics]", or pass your own network'


def run_pictures(example: Example, options: argparse.Namespace, where: Place) -> int:
    """Draw the pictures of the paper for the run of the cINN, in one process."""
    found = _found(options.out)
    if where.rank > 0:
        return 0
    if "cinn" not in found:
        print(f"no cINN in {options.out}: train first", file=sys.stderr)
        return 1
    models = {kind: _load(example, found[kind], where) for kind in ("cinn", "raw", *BASELINE_KINDS) if kind in found}
    _require_comparable({kind: model.config for kind, model in models.items()}, options.out)
    folder, colorizer = _open(example, options, where), models["cinn"]
    seen = Preset(**colorizer.config["preset"]).seen
    gallery = Gallery(colorizer, folder, options.split, seen, options.seed, options.temperature)
    others = {kind: models[kind] for kind in BASELINE_KINDS if kind in models}
    for path in gallery.write(options.out / "pictures", models.get("raw"), others):
        print(path)
    return 0


def run_colorize(example: Example, options: argparse.Namespace, where: Place) -> int:
    """Colorize images with a saved model; images that can't be read are reported and skipped."""
    if options.n < 1 or options.temperature < 0:
        print("-n must be at least 1 and --temperature at least 0", file=sys.stderr)
        return 2
    if where.rank > 0:
        return 0
    failed = 0
    # Seconds of work: on a busy machine, waiting for a second thread can take minutes.
    torch.set_num_threads(options.threads or 1)
    checkpoint, images = _checkpoint_and_images(example, options.images)
    if not images:
        print(f"no images to colorize with {checkpoint}: name them after it", file=sys.stderr)
        return 2
    colorizer = _load(example, checkpoint, where)
    side = Preset(**colorizer.config["preset"]).seen
    for path, name in zip(images, distinct_names(images), strict=True):
        try:
            pixels = read_image(path, gray=True)
        except UnusableError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = 1
            continue
        images = colorize(
            colorizer, pixels, options.n, side=side, temperature=options.temperature, seed=options.seed,
            upsampling=options.upsampling,
        )  # fmt: skip
        for written in write_colorizations(images, name, options.out):
            print(written)
    return failed


def _checkpoint_and_images(example: Example, given: Sequence[Path]) -> tuple[Path, Sequence[Path]]:
    """Return the checkpoint, which may be the first of the given paths, and the images."""
    if given[0].suffix == ".safetensors":
        return given[0], given[1:]
    own = Path("runs") / example.name / "cinn" / "model.safetensors"
    found = trained_or_own(own, f"{example.name}_cinn")
    if not found.exists():
        raise FileNotFoundError(f"{found} does not exist: train first, or name a checkpoint before the images")
    return found, given


def _load(example: Example, path: Path, where: Place) -> Colorizer:
    return load_colorizer(path, example.build, example.name).to(where.device)


def _found(run: Path) -> dict[str, Path]:
    paths = {kind: run / kind / "model.safetensors" for kind in KINDS}
    return {kind: path for kind, path in paths.items() if path.exists()}


def _open(example: Example, options: argparse.Namespace, where: Place) -> Folder:
    folder = open_folder(options.data, edge=options.edge)
    if where.rank == 0:
        print(folder.report(), flush=True)
    return folder
