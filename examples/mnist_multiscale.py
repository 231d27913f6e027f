"""A better model of MNIST than the paper's, and a comparison of both after equal processor time.

    python examples/mnist_multiscale.py draw                         # digits of your run, or of the trained model
    python examples/mnist_multiscale.py train                        # 20 minutes of one core
    python examples/mnist_multiscale.py train --model paper          # the paper's architecture, for as long
    python examples/mnist_multiscale.py compare                      # measure both, draw figure and digits

The model maps the bytes themselves, made continuous by uniform noise, and generates a picture from coarse to fine:
``digits/multiscale.py``. The paper's couplings see the same bytes with the same noise. Runs stop at Ctrl-C, or when
they are killed, and the same command continues from the last checkpoint, also with other ``--cpu-minutes``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from digits import data, judge, multiscale
from digits.timed import Run, bits
from options import above_zero, positive, prepare_folder
from weights import load_weights, trained_or_own

import invgraph as ig

RUN = Path("runs/mnist_multiscale")
TEMPERATURES = (1.0, 0.8, 0.7, 0.6)
MODELS: dict[str, dict[str, Any]] = {
    "multiscale": {"width": 32, "blocks": 2, "hidden": 256},
    "paper": {"blocks": 8, "hidden": 256},
    "paper_published": {"blocks": 24, "hidden": 512},
}
"""Sizes of each model; the paper's architecture at the size of ``mnist_cinn.py``, and at that of the paper."""
RATES = {"multiscale": 2e-3, "paper": 1.5e-3, "paper_published": 5e-4}
BATCHES = {"multiscale": 32, "paper": 128, "paper_published": 128}


def build(model: str, arguments: dict[str, Any]) -> ig.Flow:
    """Return a model of bytes from its name and sizes."""
    flow = multiscale.build(**arguments) if model == "multiscale" else multiscale.build_paper(**arguments)
    return flow.to(memory_format=torch.channels_last)


def open_checkpoint(path: Path) -> tuple[ig.Flow, dict[str, Any]]:
    """Return a trained model and its metadata."""
    metadata = ig.load(path).metadata
    if metadata.get("example") != "mnist_multiscale":
        raise SystemExit(f"{path}\n  is not a checkpoint of this example: take one that mnist_multiscale.py wrote")
    flow = build(metadata["model"], metadata["arguments"])
    load_weights(path, flow)
    return flow.eval(), metadata


def train_command(args: argparse.Namespace) -> None:
    prepare_folder(args.out)
    digits, test = data.load("train"), data.load("test")
    arguments = dict(MODELS[args.model])
    if args.model == "multiscale":
        arguments["start"] = list(multiscale.frequencies(digits.pixels))
    torch.manual_seed(args.seed)
    flow = build(args.model, arguments)
    print(f"{args.model}: {sum(weight.numel() for weight in flow.parameters()):,} parameters")
    print(f"training for {args.cpu_minutes:g} minutes of processor time; Ctrl-C saves and stops", flush=True)
    metadata = {"example": "mnist_multiscale", "model": args.model, "arguments": arguments, "seed": args.seed,
                "batch": BATCHES[args.model], "rate": RATES[args.model]}  # fmt: skip
    checkpoint = args.out / f"{args.model}.safetensors"
    run = Run(flow, RATES[args.model], BATCHES[args.model], 60 * args.cpu_minutes, checkpoint, metadata)
    few = data.Digits(test.pixels[:1000], test.labels[:1000])
    finished = run.train(digits, few, lambda line: print(line, flush=True))
    print(f"written to {checkpoint}")
    if not finished:
        print("stopped; run the same command to continue")
        raise SystemExit(130)


def measure(flow: ig.Flow, count: int, each: int, seed: int = 0) -> dict[str, Any]:
    """Return bits per dimension of test digits, and the fraction of recognized digits at each temperature."""
    test = data.load("test")
    network, labels = judge.load(), torch.arange(10).repeat(each)
    began = time.process_time()
    recognized = {}
    for temperature in TEMPERATURES:
        generator = torch.Generator().manual_seed(seed)
        x = flow.sample(each, data.condition(torch.arange(10)), temperature, generator=generator).flatten(0, 1)
        recognized[f"{temperature:g}"] = judge.accuracy(network, data.standardize(x[:, 0] / 255), labels)
    seconds = (time.process_time() - began) / (len(labels) * len(TEMPERATURES))
    found = bits(flow, data.Digits(test.pixels[:count], test.labels[:count]))
    return {"bits_per_dim": found, "test_digits": count, "recognized": recognized, "generated_digits": len(labels),
            "seconds_per_generated_digit": round(seconds, 5)}  # fmt: skip


def compare_command(args: argparse.Namespace) -> None:
    flows, results = {}, {}
    for name in MODELS:
        path = args.out / f"{name}.safetensors"
        if path.exists():
            flows[name], metadata = open_checkpoint(path)
            results[name] = {**measure(flows[name], args.count, args.each), **metadata}
            found = results[name]["recognized"]
            print(f"{name}: {results[name]['bits_per_dim']:.4f} bits per dimension, recognized {found}", flush=True)
    if not results:
        raise SystemExit(f"{args.out} has no checkpoint yet: train first")
    target = args.out / "comparison.json"
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    from digits import comparison  # needs matplotlib

    print(target, comparison.curves(results, args.out / "curves.png"), sep="\n")
    shown = {name: flows[name] for name in ("multiscale", "paper") if name in flows}
    print(comparison.samples(shown, args.out / "samples.png"))


def draw_command(args: argparse.Namespace) -> None:
    flow, _ = open_checkpoint(trained_or_own(args.out / "multiscale.safetensors", "mnist_multiscale"))
    from digits import comparison  # needs matplotlib

    print(comparison.samples({"multiscale": flow}, args.out / "digits.png", seed=args.seed))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, default=RUN, help="folder for all files that are written")
    trains = commands.add_parser("train", parents=[common], help="train a model, or resume its training")
    trains.add_argument("--model", choices=list(MODELS), default="multiscale")
    trains.add_argument("--cpu-minutes", type=above_zero, default=20, help="processor time of the training steps")
    trains.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    trains.set_defaults(run=train_command)
    compares = commands.add_parser("compare", parents=[common], help="measure and draw the models trained so far")
    compares.add_argument("--count", type=positive, default=10_000, help="number of test digits")
    compares.add_argument(
        "--each", type=positive, default=200, help="number of generated digits per class and temperature"
    )
    compares.set_defaults(run=compare_command)
    draws = commands.add_parser("draw", parents=[common], help="draw digits of the multi-scale model, in seconds")
    draws.add_argument("--seed", type=int, default=0, help="seed of the latent codes")
    draws.set_defaults(run=draw_command)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)  # processor time is what is compared
    try:
        args.run(args)
    except (ig.CheckpointError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
