"""Panels of a portrait, in the colors of a theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from torch import Tensor

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Theme:
    """Colors of a theme; the background is transparent."""

    text: str
    faint: str
    series: tuple[str, str, str, str]

    def shades(self) -> LinearSegmentedColormap:
        """Return a map of colors from transparent to the first of the series."""
        return LinearSegmentedColormap.from_list("shades", [self.series[0] + "00", self.series[0] + "ff"])


THEMES = {
    "light": Theme("#1c2430", "#c5ccd6", ("#2962a8", "#c8502d", "#4d7a2a", "#8a4fa3")),
    "dark": Theme("#e8edf3", "#4a5563", ("#7fb2ee", "#f0916f", "#9ccb76", "#c99be0")),
}


@dataclass
class Canvas:
    """The panels of a picture."""

    axes: list[Axes]
    theme: Theme

    def panel(self, at: int, title: str, *, square: bool = True) -> Axes:
        """Return a panel without ticks, under a title."""
        axis = self.axes[at]
        axis.set_title(title, fontsize=8, color=self.theme.text)
        axis.set(xticks=[], yticks=[])
        axis.patch.set_alpha(0)
        axis.spines[:].set_color(self.theme.faint)
        if square:
            axis.set_aspect("equal", adjustable="datalim")
        return axis

    def points(self, at: int, title: str, groups: Sequence[Tensor]) -> None:
        """Draw groups of points in the plane, with the two axes."""
        axis = self.panel(at, title)
        axis.axhline(0, color=self.theme.faint, linewidth=0.6)
        axis.axvline(0, color=self.theme.faint, linewidth=0.6)
        for points, color in zip(groups, self.theme.series, strict=False):
            axis.scatter(*points.t(), s=2, color=color, linewidths=0)

    def grid(self, at: int, title: str, run: Map) -> None:
        """Draw the image of a grid, with a letter that shows how it turns."""
        axis = self.panel(at, title)
        along, ticks = torch.linspace(-2, 2, 121).double(), torch.linspace(-2, 2, 11).double()
        for tick in ticks:
            for pair, color in (((along, tick.expand(121)), 0), ((tick.expand(121), along), 1)):
                axis.plot(*run(torch.stack(pair, dim=1)).t(), color=self.theme.series[color], linewidth=0.6)
        corners = torch.tensor([(0.4, 0.4), (0.4, 1.6), (1.2, 1.6), (0.4, 1.6), (0.4, 1.0), (1.0, 1.0)]).double()
        steps = torch.linspace(0, 1, 25).double()[:, None]
        for start, end in pairwise(corners):
            axis.plot(*run(start + steps * (end - start)).t(), color=self.theme.text, linewidth=1.8)

    def matrix(self, at: int, title: str, values: Tensor) -> None:
        """Draw the sizes of a matrix's entries."""
        axis = self.panel(at, title)
        axis.imshow(values.abs().sqrt(), cmap=self.theme.shades(), vmin=0)
        axis.set_aspect("equal", adjustable="box")

    def image(self, at: int, title: str, values: Tensor, **colors: Any) -> None:
        """Draw an image in shades of gray."""
        axis = self.panel(at, title)
        axis.imshow(values, **{"cmap": "Greys_r", **colors})
        axis.set_aspect("equal", adjustable="box")

    def cells(self, at: int, title: str, values: Sequence[Tensor], colors: dict[int, int]) -> None:
        """Draw values side by side, each with its channels, as squares with numbers."""
        axis, left, lowest = self.panel(at, title), 0.0, 0.0
        for value in values:
            channels = [value[None]] if value.dim() == 1 else [value] if value.dim() == 2 else list(value)
            columns = 2 if len(channels) > 3 else 1
            height, width = channels[0].shape
            for k, channel in enumerate(channels):
                x, y = left + k % columns * (width + 0.4), -(k // columns) * (height + 0.4)
                for i, row in enumerate(channel.int().tolist()):
                    for j, number in enumerate(row):
                        color, x0, y0 = self.theme.series[colors[number] % 4], x + j, y - i - 1
                        face = {"facecolor": color + "55", "edgecolor": color, "linewidth": 0.6}
                        axis.add_patch(Rectangle((x0, y0), 0.92, 0.92, **face))
                        style = {"ha": "center", "va": "center", "fontsize": 6, "color": self.theme.text}
                        axis.text(x0 + 0.46, y0 + 0.46, str(number), **style)
                        lowest = min(lowest, y0)
            left += columns * (width + 0.4) + 0.8
        axis.set_aspect("equal", adjustable="box")
        axis.set(xlim=(-0.5, left - 0.7), ylim=(lowest - 0.5, 0.5))
        axis.spines[:].set_visible(False)


Draw = Callable[[Canvas], None]


@dataclass(frozen=True)
class Portrait:
    """A picture: the number of its panels, what it shows, and how it is drawn."""

    panels: int
    caption: str
    draw: Draw
