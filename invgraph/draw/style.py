"""Colors of the drawings, for a light and a dark page."""

from __future__ import annotations

from typing import Literal, NamedTuple

Theme = Literal["auto", "light", "dark"]


class Palette(NamedTuple):
    """Colors of one theme: of the page and its texts, of boxes (fill, edge) and of lines, by kind."""

    page: str
    text: str
    faint: str
    boxes: dict[str, tuple[str, str]]
    lines: dict[str, str]


LIGHT = Palette(
    page="#ffffff", text="#1c2430", faint="#5b6675",
    boxes={
        "input": ("#dbe9fb", "#2f6fbf"), "output": ("#dbe9fb", "#2f6fbf"),
        "condition": ("#fdebc8", "#b7791f"), "feature": ("#d9f2e0", "#2f855a"),
        "layer": ("#ece6fb", "#6b46c1"), "fixed": ("#f1f3f5", "#8792a0"),
        "graph": ("#fbe4ec", "#b83280"), "repeat": ("#fafbfc", "#a4aebb"),
    },
    lines={"data": "#3b4656", "condition": "#b7791f", "feature": "#2f855a"},
)  # fmt: skip

DARK = Palette(
    page="#14181e", text="#e8edf3", faint="#a3afbd",
    boxes={
        "input": ("#17304f", "#6aa5ec"), "output": ("#17304f", "#6aa5ec"),
        "condition": ("#45330f", "#e3ad4e"), "feature": ("#163c29", "#62bf8b"),
        "layer": ("#31265a", "#a68ff0"), "fixed": ("#252c35", "#7d8998"),
        "graph": ("#48203a", "#e57fb4"), "repeat": ("#191e25", "#5d6977"),
    },
    lines={"data": "#c3ccd7", "condition": "#e3ad4e", "feature": "#62bf8b"},
)  # fmt: skip

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
