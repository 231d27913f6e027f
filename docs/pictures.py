"""Draw ``images/two_moons.png`` with the code of quickstart.rst; run it with ``python docs/pictures.py``."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import invgraph as ig

_HERE = Path(__file__).parent
_COLORS = ("#2962a8", "#c8502d")


def quickstart() -> dict[str, Any]:
    """Return the names that the visible code of the page defines, up to the section that saves the model."""
    page = (_HERE / "quickstart.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. testcode::\n\n((?:    .*\n|\n)+)", page.split("Save and load\n")[0])
    names: dict[str, Any] = {}
    for block in blocks:
        exec(textwrap.dedent(block), names)
    return names


def main() -> None:
    """Draw the data, samples of the trained flow, and the density of both moons together."""
    torch.manual_seed(0)
    names = quickstart()
    flow: ig.Flow = names["flow"]
    points, moons = names["two_moons"](1500, names["generator"])
    samples = flow.sample(750, torch.eye(2), generator=names["generator"])
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.25), sharex=True, sharey=True, layout="constrained")
    for label, color in enumerate(_COLORS):
        axes[0].scatter(*points[moons[:, label] == 1].T, s=2, color=color)
        axes[1].scatter(*samples[:, label].T, s=2, color=color)
    across, up = torch.meshgrid(torch.linspace(-1.5, 2.5, 200), torch.linspace(-1.0, 1.5, 125), indexing="xy")
    grid = torch.stack([across.flatten(), up.flatten()], dim=1)
    with torch.no_grad():
        parts = [flow.log_prob(grid, row.expand(len(grid), 2)).exp() for row in torch.eye(2)]
    density = torch.stack(parts).mean(0).view_as(across)
    axes[2].imshow(density, origin="lower", extent=(-1.5, 2.5, -1.0, 1.5), cmap="Greys")
    for axis, title in zip(axes, ("data", "samples", "density"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set(xlim=(-1.5, 2.5), ylim=(-1.0, 1.5), xticks=[], yticks=[], aspect="equal")
    figure.savefig(_HERE / "images" / "two_moons.png", dpi=110)


if __name__ == "__main__":
    main()
