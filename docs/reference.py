"""The API reference, from what ``invgraph`` exports: a new layer stands in it without a line written for it."""

from __future__ import annotations

from pathlib import Path

import sphinx.application

import invgraph
import invgraph.testing

_Lines = list[str]

_GROUPS = {
    "declare": ("Nodes and graphs", ("node", "graph", "invertible")),
    "layers": ("Layers", ("modules",)),
    "transforms": ("Transforms", ("transforms",)),
    "nets": ("Subnets", ("nets", "subnet")),
    "testing": ("Testing layers of your own", ("testing",)),
    "errors": ("Errors", ("errors",)),
}
_LAZY = {"invgraph.testing": ("graphs", "layers", "shapes")}
_OTHERS = ("tools", "Densities, runners, checkpoints and tools")


def write(folder: Path) -> None:
    """A page with a table for each group of names; autosummary makes a page of each name in them."""
    groups: dict[str, list[str]] = {key: [] for key in (*_GROUPS, _OTHERS[0])}
    modules = {"": invgraph, "init.": invgraph.init, "nets.": invgraph.nets, "testing.": invgraph.testing}
    for prefix, module in modules.items():
        for name in sorted({*vars(module), *_LAZY.get(module.__name__, ())}):
            value = getattr(module, name)
            home = getattr(value, "__module__", "")
            if name.startswith("_") or not home.startswith("invgraph") or not callable(value):
                continue
            if prefix and not home.startswith(module.__name__):
                continue
            groups[_group(home)].append(prefix + name)
    titles = {key: title for key, (title, _) in _GROUPS.items()} | dict([_OTHERS])
    folder.mkdir(parents=True, exist_ok=True)
    for key, names in groups.items():
        title = titles[key]
        lines = [title, "=" * len(title), "", ".. currentmodule:: invgraph", ""]
        lines += [".. autosummary::", "   :toctree: names", "", *(f"   {name}" for name in names), ""]
        _update(folder / f"{key}.rst", "\n".join(lines))


def _update(path: Path, text: str) -> None:
    """Write only what changed, so that a build reads no page twice."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _group(home: str) -> str:
    first = home.removeprefix("invgraph.").split(".")[0]
    return next((key for key, (_, homes) in _GROUPS.items() if first in homes), _OTHERS[0])


def _readable(app: object, what: str, name: str, obj: object, options: object, lines: _Lines) -> None:
    """Say in reStructuredText what our docstrings say in plain text.

    The section ``Log-det:`` becomes a rubric (napoleon's headings can't have a hyphen), and the bars of a determinant
    are not those of a substitution.
    """
    lines[:] = [line.replace("|det J|", r"\|det J\|") for line in lines]
    if "Log-det:" in lines:
        start = lines.index("Log-det:")
        lines[start : start + 1] = [".. rubric:: Log-det", ""]
        at = start + 2
        while at < len(lines) and (not lines[at] or lines[at].startswith(" ")):
            lines[at] = lines[at][4:]
            at += 1


def _without_undocumented(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Members that only fill in the contract say nothing that their base does not say."""
    if getattr(obj, "__doc__", None) is None:
        return True
    return None


def setup(app: sphinx.application.Sphinx) -> dict[str, bool]:
    """Sphinx's hook."""
    app.connect("autodoc-process-docstring", _readable, priority=400)
    app.connect("autodoc-skip-member", _without_undocumented)
    return {"parallel_read_safe": True}
