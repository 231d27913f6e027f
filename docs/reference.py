"""The API reference, generated from what ``invgraph`` exports, so that a new layer appears in it by itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_origin

import portraits
import sphinx.application
from sphinx.ext.autodoc.mock import mock

import invgraph
import invgraph.testing

_Lines = list[str]

_GROUPS = {  # the first that fits
    "tools": ("Diagnosis", ("diagnose", "graph.summary", "graph.trace")),
    "declare": ("Declare a graph", ("graph", "core.invertible", "core.wrappers")),
    "densities": ("Densities", ("flow", "distributions", "bases", "densities", "layers.gaussian_mixture")),
    "structures": ("Structures", tuple(f"layers.{name}" for name in (
        "coupling", "masked_coupling", "elementwise", "autoregressive", "patch_autoregressive", "all_in_one",
        "residual", "continuous_flow",
    ))),
    "transforms": ("Transforms", ("transforms",)),
    "mixing": ("Linear layers", tuple(f"layers.{name}" for name in (
        "permute", "linear", "conv1x1", "householder", "orthogonal_linear", "low_rank_linear", "actnorm",
        "learned_scaling",
    ))),
    "shapes": ("Changes of shape", tuple(f"layers.{name}" for name in (
        "haar", "squeeze", "orthogonal_squeeze", "dct", "split", "concat", "reshape",
    ))),
    "layers": ("Other layers", ("layers",)),
    "nets": ("Subnets", ("nets", "core.subnet")),
    "inference": ("Recipes, training and calibration", ("recipes", "inference", "sbi")),
    "runners": ("Runners and export", ("reversible", "export", "fused")),
    "keep": ("Checkpoints, random numbers, initial weights", ("checkpoint", "core.stochastic", "init")),
    "testing": ("Testing your own layers", ("testing",)),
    "errors": ("Errors", ("errors",)),
}  # fmt: skip
_LAZY = {
    "invgraph.testing": ("graphs", "layers", "shapes"),
    "invgraph.sbi": ("SbiEstimator", "likelihood", "posterior"),
}

MOCKED = [package for package in ("sbi",) if find_spec(package) is None]
"""Packages that the names of the reference need and that are not installed."""


def write(folder: Path) -> None:
    """Write a page with a table for each group of names; autosummary makes a page for each name in it."""
    groups: dict[str, list[str]] = {key: [] for key in _GROUPS}
    rooms = ("inference", "init", "nets", "recipes", "sbi", "testing")
    modules = {"": invgraph, **{f"{name}.": getattr(invgraph, name) for name in rooms}}
    for prefix, module in modules.items():
        for name in sorted({*vars(module), *_LAZY.get(module.__name__, ())}):
            with mock(MOCKED):
                value = getattr(module, name)
            home = getattr(value, "__module__", "")
            if name.startswith("_") or not home.startswith("invgraph") or not callable(value):
                continue
            if prefix and not home.startswith(module.__name__):
                continue
            groups[_group(home)].append(prefix + name)
    titles = {key: title for key, (title, _) in _GROUPS.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for key, names in groups.items():
        title = titles[key]
        lines = [title, "=" * len(title), "", ".. currentmodule:: invgraph", ""]
        lines += [".. autosummary::", "   :toctree: names", "", *(f"   {name}" for name in names), ""]
        _update(folder / f"{key}.rst", "\n".join(lines))


def _update(path: Path, text: str) -> None:
    """Write a file only if it changed, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _group(home: str) -> str:
    """Return the group of the names that a module defines."""
    for key, (_, rooms) in _GROUPS.items():
        if any(f"{home}.".startswith(f"invgraph.{room}.") for room in rooms):
            return key
    raise ValueError(f"{home} belongs to no group of the reference")


def _readable(app: object, what: str, name: str, obj: object, options: object, lines: _Lines) -> None:
    """Turn the plain text of our docstrings into reStructuredText.

    A class that has a portrait shows it under its first paragraph. The section ``Log-det:`` becomes a rubric, because
    headings of napoleon can't contain a hyphen, and the bars of a determinant are escaped, because they would start a
    substitution. Examples that need a package that is not installed are shown, not run.
    """
    picture = portraits.lines(name.removeprefix("invgraph.")) if what == "class" else []
    if picture:
        first = lines.index("")
        lines[first:first] = ["", *picture]
    lines[:] = [line.replace("|det J|", r"\|det J\|") for line in lines]
    needs_package = name.removeprefix("invgraph.sbi.") in _LAZY["invgraph.sbi"]
    if MOCKED and needs_package and "Example:" in lines:
        start = lines.index("Example:") + 1
        lines[start:] = ["    .. code-block:: pycon", "", *(f"    {line}" for line in lines[start:])]
    if "Log-det:" in lines:
        start = lines.index("Log-det:")
        lines[start : start + 1] = [".. rubric:: Log-det", ""]
        at = start + 2
        while at < len(lines) and (not lines[at] or lines[at].startswith(" ")):
            lines[at] = lines[at][4:]
            at += 1


def _without_undocumented(app: object, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Skip members without a docstring: they only implement what their base class documents."""
    if getattr(obj, "__doc__", None) is None:
        return True
    return None


def _public_bases(app: object, name: str, obj: object, options: object, bases: list[Any]) -> None:
    """Name the nearest base class that has a page of its own, not one that only serves the library."""
    public = {id(value) for value in vars(invgraph).values()}
    for place, base in enumerate(bases):
        if getattr(base, "__module__", "").startswith("invgraph.") and id(base) not in public:
            ancestors = (get_origin(base) or base).__mro__
            known = [ancestor for ancestor in ancestors if id(ancestor) in public]
            outside = [ancestor for ancestor in ancestors if not ancestor.__module__.startswith("invgraph.")]
            bases[place] = (known or outside)[0]
    bases[:] = list(dict.fromkeys(bases))


def setup(app: sphinx.application.Sphinx) -> dict[str, bool]:
    """Register the hooks; Sphinx calls this."""
    app.connect("autodoc-process-docstring", _readable, priority=400)
    app.connect("autodoc-skip-member", _without_undocumented)
    app.connect("autodoc-process-bases", _public_bases)
    return {"parallel_read_safe": True}
