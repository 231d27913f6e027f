"""PNG of a scene, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from typing import Any

from invgraph.draw.fonts import set_fonts
from invgraph.draw.layout import SUBTITLE, TITLE
from invgraph.draw.notes import NOTE
from invgraph.draw.scene import Mark, Scene
from invgraph.draw.style import DARK, LIGHT, Palette
from invgraph.errors import DependencyError

_SCALE = 72 / 100  # points of a text per pixel at 100 pixels per inch
_MOST = 16_000  # pixels of one side: Agg draws fewer than 65,536
_LEGIBLE = 100  # pixels per inch, one per unit: below, letters have fewer pixels than they need


def png(scene: Scene, dark: bool, where: str) -> bytes:
    """Return the picture, at two pixels per unit unless it is so long that fewer must do.

    Letters that matplotlib's font lacks are taken from another font that is installed. A warning says so where none has
    them, and where the picture is too long for its texts to be read.

    Raises:
        DependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        advice = "a PNG is drawn by matplotlib: pip install matplotlib, or draw a .svg, which needs nothing"
        raise DependencyError(where, "a file that ends in .png", advice) from error
    palette = DARK if dark else LIGHT
    figure = Figure(figsize=(scene.width / 100, scene.height / 100), facecolor=palette.page)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.axis("off")
    frames = [mark for mark in scene.marks if mark.kind == "repeat"]
    for mark in frames:
        _box(axes, mark, palette)
    _strokes(axes, scene, palette)
    for mark in frames:
        place = mark.x + mark.x_title, mark.y + 13
        text = _text(axes, *place, mark.title, TITLE, palette.text, ha="left", weight="bold")
        text.set_bbox({"facecolor": palette.boxes["repeat"][0], "edgecolor": "none", "pad": 0.6})
    for mark in (mark for mark in scene.marks if mark.kind != "repeat"):
        _box(axes, mark, palette)
    for note in scene.notes:
        x, align = (note.x - 6, "right") if note.side < 0 else (note.x + 6, "left")
        text = _text(axes, x, note.y, note.text, NOTE, palette.faint, ha=align)
        text.set_bbox({"facecolor": palette.page, "edgecolor": "none", "pad": 0.6})
    set_fonts(axes.texts, where, stacklevel=4)  # png, write, Graph.draw and its caller
    out = io.BytesIO()
    dpi = min(200, 100 * _MOST / max(scene.width, scene.height))
    if dpi < _LEGIBLE:
        warnings.warn(
            f"{where}: the picture is too long for a .png: at {_MOST:,} pixels, its texts have "
            f"{dpi:.0f} % of their size; draw a .svg, which has no limit",
            stacklevel=4,
        )
    FigureCanvasAgg(figure).print_figure(out, dpi=dpi)
    return out.getvalue()


def _text(axes: Any, x: float, y: float, text: str, size: float, color: str, **more: Any) -> Any:
    """Add a text; a dollar sign starts no formula, and matplotlib's DejaVu Sans is wide."""
    settings = {"ha": "center", "va": "center", "fontsize": 0.92 * size * _SCALE, "color": color, **more}
    return axes.text(x, y, text.replace("$", r"\$"), **settings)


def _box(axes: Any, mark: Mark, palette: Palette) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, edge = palette.boxes[mark.kind]
    radius = {"input": 13, "output": 13, "condition": 13, "repeat": 10}.get(mark.kind, 5)
    for inset in (0, 3) if mark.kind == "graph" else (0,):
        corner = (mark.x + inset, mark.y + inset)
        size = (mark.width - 2 * inset, mark.height - 2 * inset)
        style = f"round,pad=0,rounding_size={min(radius, size[1] / 2)}"
        dash = (0, (5, 4)) if mark.kind == "repeat" else "solid"
        patch = FancyBboxPatch(corner, *size, boxstyle=style, fc=fill, ec=edge, lw=1.3 * _SCALE, ls=dash)
        axes.add_patch(patch)
    middle = mark.x + mark.width / 2
    if mark.kind == "repeat":
        return  # its title is drawn later, on top of the arrows
    if mark.subtitle:
        _text(axes, middle, mark.y + 13, mark.title, TITLE, palette.text, weight="bold")
        _text(axes, middle, mark.y + 28, mark.subtitle, SUBTITLE, palette.faint)
    else:
        _text(axes, middle, mark.y + mark.height / 2, mark.title, TITLE, palette.text, weight="bold")


def _strokes(axes: Any, scene: Scene, palette: Palette) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    for stroke in scene.strokes:
        (x, top), (_, low), (end, high), (_, bottom) = stroke.points
        down = bottom - 6 if stroke.tip else bottom
        half = (low + high) / 2
        points = [(x, top), (x, low), (x, half), (end, half), (end, min(high, down)), (end, down)]
        codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
        color = palette.lines[stroke.kind]
        axes.add_patch(PathPatch(Path(points, codes), fc="none", ec=color, lw=1.5 * _SCALE))
        if stroke.tip:
            tip = [(end, bottom), (end - 4, bottom - 8), (end + 4, bottom - 8)]
            axes.add_patch(Polygon(tip, fc=color, ec="none"))
