"""A small picture of every layer, transform and subnet, drawn in both themes when the pages are built.

``.. portrait:: Coupling`` shows one, ``.. portraits:: Squeeze Haar`` several side by side with their names. The page of
each class in the reference shows its own.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from portraits.canvas import THEMES, Canvas
from portraits.table import PORTRAITS


def draw(name: str, theme: str) -> Figure:
    """Draw one portrait."""
    portrait = PORTRAITS[name]
    figure = Figure(figsize=(1.75 * portrait.panels, 1.95), layout="constrained")
    figure.patch.set_alpha(0)
    portrait.draw(Canvas(list(figure.subplots(1, portrait.panels, squeeze=False)[0]), THEMES[theme]))
    return figure


def write(folder: Path) -> None:
    """Draw what is missing or older than these files: ``Haar-light.png`` and ``Haar-dark.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))
    for name in PORTRAITS:
        for theme in THEMES:
            path = folder / f"{name}-{theme}.png"
            if not path.exists() or path.stat().st_mtime < newest:
                draw(name, theme).savefig(path, dpi=150, metadata={"Software": None})


def lines(name: str) -> list[str]:
    """Return reStructuredText with the portrait of a name in both themes; nothing if there is none."""
    if name not in PORTRAITS:
        return []
    portrait, found = PORTRAITS[name], []
    for theme in THEMES:
        found += [f".. image:: /drawings/portraits/{name}-{theme}.png", f"   :class: portrait only-{theme}"]
        found += [f"   :width: {11 * portrait.panels}em", f"   :alt: {portrait.caption}", ""]
    return found


class SinglePortrait(SphinxDirective):
    """``.. portrait:: Coupling``: the picture alone."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the picture in both themes."""
        return self.parse_text_to_nodes("\n".join(lines(self.arguments[0])))


class Portraits(SphinxDirective):
    """``.. portraits:: Squeeze Haar``: pictures side by side, each over the name and what it shows."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return one box with a card for each name."""
        text = ["", ".. container:: portraits", ""]
        for name in self.arguments[0].split():
            role = "func" if name.startswith("nets.") else "class"
            card = [".. container:: card", "", *(f"   {line}" for line in lines(name)), ""]
            card += [f"   :{role}:`~invgraph.{name}`: {PORTRAITS[name].caption}", ""]
            text += [f"   {line}" for line in card]
        return self.parse_text_to_nodes("\n".join(text))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive; Sphinx calls this."""
    app.add_directive("portrait", SinglePortrait)
    app.add_directive("portraits", Portraits)
    return {"parallel_read_safe": True}
