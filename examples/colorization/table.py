"""Table of metrics (paper, Table 1): every model on the same held-out photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import invgraph as ig
from colorization.colorizer import Colorizer
from colorization.features import Viewer
from colorization.lab import lab_to_rgb
from colorization.metrics import Measured, bootstrap, frechet, hits, mean_of, rmse_best, variance
from colorization.photos import Crops, Folder
from colorization.upsampling import bicubic

NAMES = {
    "truth": "ground truth", "gray": "gray", "cinn": "cINN", "unconditional": "unconditional flow",
    "raw": "cINN, no conditioning network", "cnn": "L2 regression (CNN)", "cvae": "conditional VAE",
    "cgan": "conditional GAN (pix2pix)", "colorgan": "colorGAN",
}  # fmt: skip
COLUMNS = {
    "nll": "NLL, nats per dimension", "rmse_1": "RMSE of one sample, ab", "rmse_8": "RMSE best of 8, ab",
    "rmse_8_rgb": "RMSE best of 8, % of RGB", "variance": "variance, ab²", "frechet": "Fréchet distance",
    "top5": "top-5 agreement",
}  # fmt: skip
DENSITIES = ("cinn", "unconditional", "raw")
VIEWED = 224  # side of the pictures for the viewer network


@dataclass
class HeldOut:
    """Held-out photographs for the metrics, prepared once.

    Arguments:
        folder: Photographs.
        split: Split of the folder.
        seen: Side of the lightness that the models take, in pixels.
        viewer: Network for features and classes, or None.
    """

    folder: Folder
    split: str
    seen: int
    viewer: Viewer | None
    lab: Tensor = field(init=False)
    large: Tensor = field(init=False)
    real: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.lab = _stack(self.folder, self.split, self.seen)
        self.large = _stack(self.folder, self.split, VIEWED)
        if self.viewer is not None:
            self.real = _view(self.viewer, self.large)


def _stack(folder: Folder, split: str, size: int) -> Tensor:
    crops = Crops(folder, split, size)
    return torch.stack([crops[index] for index in range(len(crops))])


def _view(viewer: Viewer, lab: Tensor) -> tuple[Tensor | None, Tensor | None]:
    seen = [viewer(lab_to_rgb(part)) for part in lab.split(16)]
    features = [part.features for part in seen if part.features is not None]
    logits = [part.logits for part in seen if part.logits is not None]
    return torch.cat(features) if features else None, torch.cat(logits) if logits else None


def evaluate(
    kind: str, colorizer: Colorizer, held_out: HeldOut, n: int = 8, seed: int = 0, temperature: float = 1.0
) -> dict[str, Measured]:
    """Return one row of the table.

    Arguments:
        kind: Key of ``NAMES``; for ``"truth"`` and ``"gray"``, the colorizer only defines the resolution.
        colorizer: Colorizer in evaluation mode.
        held_out: Photographs.
        n: Number of samples for each photograph. Default: 8.
        seed: Seed of the latents and of the noise in likelihoods. Default: 0.
        temperature: Temperature of the latents. Default: 1.
    """
    lab = held_out.lab
    truth = colorizer.own_colors(lab)
    if kind == "truth":
        samples = truth[None]
    elif kind == "gray":
        samples = torch.zeros_like(truth)[None]
    else:
        generator = colorizer.generator(seed)
        parts = [colorizer.sample(part[:, :1], n, temperature, generator=generator) for part in lab.split(16)]
        samples = torch.cat(parts, dim=1)
    lightness = functional.adaptive_avg_pool2d(lab[:, :1], truth.shape[-1])
    shown = [lab_to_rgb(torch.cat((lightness, ab), dim=1)) for ab in (truth, *samples)]
    singles = torch.stack([rmse_best(sample[None], truth) for sample in samples]).mean(0)
    row = {
        "rmse_1": mean_of(singles),
        "rmse_8": mean_of(rmse_best(samples, truth)),
        "rmse_8_rgb": mean_of(100 * rmse_best(torch.stack(shown[1:]), shown[0])),
        "variance": mean_of(variance(samples)),
    }
    if kind in DENSITIES and temperature == 1:
        row["nll"] = mean_of(colorizer.nll(lab, seed))
    return row | _viewer_metrics(samples, held_out)


@torch.no_grad()
def round_trip(flow: ig.Flow, x: Tensor, c: Tensor) -> float:
    """Return the largest absolute round trip error of colors."""
    errors = []
    for part, given in zip(x.split(16), c.split(16), strict=True):
        z, _ = flow.graph(part, given)
        errors.append(float((flow.graph.inverse(z, given)[0] - part).abs().max()))
    return max(errors)


def _viewer_metrics(samples: Tensor, held_out: HeldOut, rounds: int = 100) -> dict[str, Measured]:
    """Return the metrics of the viewer network on upsampled pictures, averaged over the sets of samples."""
    if held_out.viewer is None:
        return {}
    real, logits = held_out.real
    views = []
    for sample in samples:
        lab = torch.cat((held_out.large[:, :1], bicubic(sample, (VIEWED, VIEWED))), dim=1)
        views.append(_view(held_out.viewer, lab))

    def distance(chosen: Tensor) -> float:
        return sum(frechet(seen[chosen], real[chosen]) for seen, _ in views if seen is not None) / len(views)

    row = {} if real is None else {"frechet": bootstrap(len(real), distance, rounds=rounds)}
    if logits is not None:  # photographs have no labels, so the prediction for the original is the label
        labels = logits.argmax(1)
        agreed = [hits(seen, labels) for _, seen in views if seen is not None]
        row["top5"] = mean_of(torch.stack(agreed).mean(0))
    return row


Rows = Mapping[str, Mapping[str, Measured]]


def _title(kind: str) -> str:
    """Return the title of ``cinn`` or, at a temperature other than one, ``cinn 0.8``."""
    name, _, temperature = kind.partition(" ")
    return f"{NAMES[name]}, temperature {temperature}" if temperature else NAMES[name]


def as_rst(rows: Rows) -> str:
    """Format rows as an RST list table; undefined figures are empty."""
    lines = [
        ".. list-table::",
        "   :class: compact sticky",
        "   :header-rows: 1",
        "   :stub-columns: 1",
        "   :widths: auto",
        "",
        "   * - ",
    ]
    lines += [f"     - {title}" for title in COLUMNS.values()]
    for kind, row in rows.items():
        lines.append(f"   * - {_title(kind)}")
        lines += [f"     - {row[key]}" if key in row else "     -" for key in COLUMNS]
    return "\n".join(lines) + "\n"


def as_text(rows: Rows) -> str:
    """Format rows as columns for a terminal."""
    cells = [["", *COLUMNS]]
    cells += [[_title(kind), *(str(row.get(key, "")) for key in COLUMNS)] for kind, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def write_table(rows: Rows, about: Mapping[str, Any], folder: Path) -> None:
    """Write ``table.json`` and ``table.rst`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {kind: {key: figure._asdict() for key, figure in row.items()} for kind, row in rows.items()}
    (folder / "table.json").write_text(json.dumps({"about": dict(about), "rows": figures}, indent=1) + "\n")
    (folder / "table.rst").write_text(as_rst(rows))
