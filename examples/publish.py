"""Write the trained models of ``examples/trained`` from finished runs, in half precision, with their figures as JSON.

    python examples/mnist_cinn.py
    python examples/bedrooms_cinn.py train --steps 3000
    python examples/pretrain_condition_net.py --steps 1000
    python examples/mnist_multiscale.py train
    python examples/publish.py                         # what there is of these four in the folder runs

The figures are those of the published file, not of the run. The description beside each file is written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bedrooms_cinn
import mnist_cinn
import mnist_multiscale
import torch
from colorization.colorizer import load_colorizer
from colorization.condition_net import ColorClassifier, ConditionNet, load_condition_net
from colorization.features import find_viewer
from colorization.photos import SPLITS, Crops, open_folder
from colorization.pretraining import errors_of, losses_of
from colorization.table import HeldOut, evaluate, round_trip
from digits import measure
from weights import FOLDER, load_weights, save_half

import invgraph as ig

TEMPERATURE = 0.7
LIGHTNESS, COLORS = 128, 32  # sides of the lightness and of the colors in the preset of the conditioning network


def publish_digits(run: Path, out: Path) -> dict[str, Any]:
    """Publish the model of MNIST."""
    flow, metadata, history = mnist_cinn.open_checkpoint(run / "model.safetensors", "cpu")
    save_half(out, flow, {**metadata, "history": asdict(history)})
    flow, _, _ = mnist_cinn.open_checkpoint(out, "cpu")
    trained = {"steps": history.reached, "seconds": round(history.seconds, 1)}
    return {**measure.evaluate(flow, metadata["noise"]), "settings": metadata, "training": trained}


def publish_multiscale(run: Path, out: Path) -> dict[str, Any]:
    """Publish the multi-scale model of MNIST."""
    flow, metadata = mnist_multiscale.open_checkpoint(run / "multiscale.safetensors")
    save_half(out, flow, metadata)
    flow, _ = mnist_multiscale.open_checkpoint(out)
    about = {name: metadata[name] for name in ("model", "arguments", "batch", "rate", "seed")}
    trained = {"steps": metadata["steps"], "seconds": metadata["seconds"]}
    return {**mnist_multiscale.measure(flow, 10_000, 200), "settings": about, "training": trained}


def publish_colorizer(run: Path, out: Path) -> dict[str, Any]:
    """Publish the colorizer, measured on the test split of the included photographs."""
    colorizer = load_colorizer(run / "cinn" / "model.safetensors", bedrooms_cinn.build, "bedrooms")
    save_half(out, colorizer, colorizer.config)
    colorizer = load_colorizer(out, bedrooms_cinn.build, "bedrooms")
    held_out = HeldOut(open_folder(), "test", colorizer.colors, find_viewer(None, None))
    rows = {kind: evaluate(kind, colorizer, held_out) for kind in ("truth", "gray", "cinn")}
    rows[f"cinn {TEMPERATURE}"] = evaluate("cinn", colorizer, held_out, temperature=TEMPERATURE)
    figures = {kind: {key: figure._asdict() for key, figure in row.items()} for kind, row in rows.items()}
    state = ig.load(run / "cinn" / "training.safetensors").training
    return {
        "rows": figures, "photographs": len(held_out.lab), "settings": colorizer.config,
        "round_trip": round_trip(colorizer.model, *colorizer.prepare(held_out.lab)),
        "training": {"steps": state["history"]["reached"], "seconds": round(state["history"]["seconds"], 1)},
    }  # fmt: skip


def publish_condition_net(run: Path, out: Path) -> dict[str, Any]:
    """Publish the conditioning network, measured on each split of the included photographs."""
    metadata = ig.load(run / "model.safetensors").metadata
    classifier = ColorClassifier(ConditionNet(metadata["width"]))
    load_weights(run / "model.safetensors", classifier)
    save_half(out, classifier.net, metadata)
    load_condition_net(classifier.net, out)
    folder = open_folder()
    colors = Crops(folder, "train", COLORS).spread(2000)[:, 1:]
    errors, losses, counts = {}, {}, {}
    for split in SPLITS:
        lab = Crops(folder, split, LIGHTNESS).spread(2000)
        counts[split] = len(lab)
        errors[split] = {name: error._asdict() for name, error in errors_of(classifier.eval(), lab).items()}
        losses[split] = dict(zip(("network", "constant guess"), losses_of(classifier, lab, colors), strict=True))
    state = ig.load(run / "training.safetensors").training
    return {
        "rmse_ab": errors, "loss": losses, "photographs": counts, "settings": metadata,
        "training": {"steps": state["history"]["reached"], "seconds": round(state["history"]["seconds"], 1)},
    }  # fmt: skip


MODELS = {
    "mnist_cinn": (publish_digits, "mnist"),
    "mnist_multiscale": (publish_multiscale, "mnist_multiscale"),
    "bedrooms_cinn": (publish_colorizer, "bedrooms"),
    "condition_net": (publish_condition_net, "condition_net"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", choices=[*MODELS, []], help="models to publish; default: all that have a run"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the published files")
    args = parser.parse_args(arguments)
    names = args.names or [name for name, (_, run) in MODELS.items() if (args.runs / run).exists()]
    if not names:
        raise SystemExit(f"{args.runs} holds no run of {', '.join(MODELS)}: train first, as described above")
    for name in names:
        publish, run = MODELS[name]
        path = args.out / f"{name}.safetensors"
        try:
            figures = publish(args.runs / run, path)
        except (ig.CheckpointError, OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        figures["versions"] = {"invgraph": ig.__version__, "torch": torch.__version__}
        path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        content = path.read_bytes()
        print(f"{path}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
