"""Files of a drawing: the suffix chooses the kind."""

from __future__ import annotations

import os
from pathlib import Path

from invgraph.draw.boxes import Picture
from invgraph.draw.layout import layout
from invgraph.draw.markup import dot, mermaid
from invgraph.draw.png import png
from invgraph.draw.style import Theme
from invgraph.draw.svg import svg
from invgraph.errors import ArgumentError, GraphError

SUFFIXES = (".svg", ".png", ".dot", ".mmd")


def check_target(where: str, path: object) -> Path:
    """Return the path of a drawing, before anything is drawn.

    Raises:
        ArgumentError: If it is not a path.
        GraphError: If its suffix is unknown, its folder is missing, or something other than a file lies there.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise ArgumentError(where, f"path: {type(path).__name__}", "path must be a str or a Path")
    target = Path(path)
    given = f"path {str(target)!r}"
    if target.suffix.lower() not in SUFFIXES:
        raise GraphError(where, given, f"the file name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not target.parent.is_dir():
        raise GraphError(where, given, "the folder does not exist: create it first")
    if target.exists() and not target.is_file():
        raise GraphError(where, given, "it is not a regular file: choose another name")
    return target


def write(where: str, target: Path, picture: Picture, theme: Theme, label: str) -> None:
    """Draw a picture into a file."""
    suffix = target.suffix.lower()
    if suffix == ".png":
        content = png(layout(picture), theme == "dark", where)
    elif suffix == ".svg":
        content = svg(layout(picture), theme, label).encode()
    else:
        content = (dot(picture) if suffix == ".dot" else mermaid(picture)).encode()
    try:
        target.write_bytes(content)
    except OSError as error:
        raise GraphError(where, f"path {str(target)!r}", f"can't be written: {error.strerror}") from error
