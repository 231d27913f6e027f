"""SVG of a scene, in pure Python; colors follow the reader's theme unless one is asked for."""

from __future__ import annotations

from html import escape

from invgraph.draw.layout import SUBTITLE, TITLE
from invgraph.draw.notes import NOTE
from invgraph.draw.scene import Mark, Point, Scene, Stroke
from invgraph.draw.style import DARK, FONT, LIGHT, Palette, Theme


def svg(scene: Scene, theme: Theme, label: str) -> str:
    """Return the document.

    Arguments:
        scene: What is drawn.
        theme: ``"light"`` or ``"dark"``, or ``"auto"`` for the theme of the reader's system.
        label: Description for screen readers.
    """
    name = f"invgraph-{theme}"
    rules = _rules(DARK if theme == "dark" else LIGHT, name)
    if theme == "auto":
        rules += f"@media (prefers-color-scheme: dark) {{\n{_rules(DARK, name)}}}\n"
    width, height = (f"{size:.0f}" for size in (scene.width, scene.height))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">',
        f"<style>\n.{name} {{ font-family: {FONT}; max-width: 100%; height: auto; }}\n{rules}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
    ]
    frames = [mark for mark in scene.marks if mark.kind == "repeat"]
    lines += [_box(mark) for mark in frames]
    lines += [_stroke(stroke) for stroke in scene.strokes]
    lines += [_line("heading", mark.x + mark.x_title, mark.y + 17, mark.title, TITLE, "start") for mark in frames]
    lines += [_box(mark) for mark in scene.marks if mark.kind != "repeat"]
    for note in scene.notes:
        x, anchor = (note.x - 6, "end") if note.side < 0 else (note.x + 6, "start")
        lines.append(_line("note", x, note.y + 0.36 * NOTE, note.text, NOTE, anchor))
    return "\n".join([*lines, "</svg>", ""])


def _rules(palette: Palette, name: str) -> str:
    found = [f".{name} .page {{ fill: {palette.page}; }}"]
    found.append(f".{name} .title {{ fill: {palette.text}; font-weight: 600; }}")
    found.append(f".{name} .subtitle {{ fill: {palette.faint}; }}")
    found.append(f".{name} .note {{ fill: {palette.faint}; stroke: {palette.page}; stroke-width: 3px; "
                 "paint-order: stroke; stroke-linejoin: round; }")  # fmt: skip
    found.append(f".{name} .heading {{ fill: {palette.text}; font-weight: 600; stroke: {palette.boxes['repeat'][0]}; "
                 "stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; }")  # fmt: skip
    for kind, (fill, edge) in palette.boxes.items():
        found.append(f".{name} .{kind} {{ fill: {fill}; stroke: {edge}; stroke-width: 1.3px; }}")
    for kind, color in palette.lines.items():
        found.append(f".{name} .{kind}-line {{ fill: none; stroke: {color}; stroke-width: 1.5px; }}")
        found.append(f".{name} .{kind}-tip {{ fill: {color}; }}")
    return "\n".join([*found, ""])


def _box(mark: Mark) -> str:
    place = f'x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" height="{mark.height:.1f}"'
    round_ = {"input": 13, "output": 13, "condition": 13, "repeat": 10}.get(mark.kind, 5)
    dash = ' stroke-dasharray="5 4"' if mark.kind == "repeat" else ""
    shape = f'<rect class="{mark.kind}" {place} rx="{round_}"{dash}/>'
    if mark.kind == "graph":
        inner = f'x="{mark.x + 3:.1f}" y="{mark.y + 3:.1f}" width="{mark.width - 6:.1f}" height="{mark.height - 6:.1f}"'
        shape += f'<rect class="graph" {inner} rx="3"/>'
    tip = f"<title>{escape(mark.tip)}</title>" if mark.tip else ""
    if mark.kind == "repeat":
        return f"<g>{tip}{shape}</g>"  # its title is drawn later, on top of the arrows
    middle = mark.x + mark.width / 2
    if not mark.subtitle:
        return f"<g>{tip}{shape}{_line('title', middle, mark.y + mark.height / 2 + 4.5, mark.title, TITLE)}</g>"
    title = _line("title", middle, mark.y + 17, mark.title, TITLE)
    return f"<g>{tip}{shape}{title}{_line('subtitle', middle, mark.y + 32, mark.subtitle, SUBTITLE)}</g>"


def _line(kind: str, x: float, y: float, text: str, size: float, anchor: str = "middle") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def _stroke(stroke: Stroke) -> str:
    (x, top), (_, low), (end, high), (_, bottom) = stroke.points
    down = bottom - 6 if stroke.tip else bottom
    path = f"M{x:.1f} {top:.1f}V{low:.1f}"
    if abs(x - end) < 0.05:
        path += f"V{down:.1f}"
    else:
        half = (low + high) / 2
        path += f"C{x:.1f} {half:.1f} {end:.1f} {half:.1f} {end:.1f} {min(high, down):.1f}V{down:.1f}"
    line = f'<path class="{stroke.kind}-line" d="{path}"/>'
    return line + (_tip(stroke.kind, (end, bottom)) if stroke.tip else "")


def _tip(kind: str, at: Point) -> str:
    x, y = at
    return f'<path class="{kind}-tip" d="M{x:.1f} {y:.1f}L{x - 4:.1f} {y - 8:.1f}H{x + 4:.1f}Z"/>'
