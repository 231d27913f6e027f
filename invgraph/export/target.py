"""The path of a file that an export writes, checked before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from invgraph.checkpoint.atomic_file import as_path, require_regular
from invgraph.errors import ArgumentError, GraphError

NOTHING = "nothing was written"


def require_target(where: str, path: object, suffix: str = "") -> None:
    """Refuse a path that can't be written to.

    Arguments:
        where: Function named in errors.
        path: The path.
        suffix: Ending that the name must have. Default: any.
    """
    if not isinstance(path, (str, Path)):
        raise ArgumentError(where, f"path: {type(path).__name__}", "path must be a str or Path")
    target = as_path(where, path)
    given = f"path={str(path)!r}"
    if not str(path).endswith(suffix):
        advice = f"torch writes such a package only to a name that ends in {suffix}, such as {target.stem + suffix!r}"
        raise GraphError(where, given, advice)
    require_regular(where, target, NOTHING)
    folder = target.parent
    if not folder.is_dir():
        raise GraphError(where, given, f"{str(folder)!r} is not a folder: create it first; {NOTHING}")
    if not os.access(folder, os.W_OK):
        raise GraphError(where, given, f"no permission to write to the folder {str(folder)!r}: {NOTHING}")


def not_written(where: str, path: str | Path, error: OSError) -> GraphError:
    """Return the error for a file that could not be written after all."""
    return GraphError(where, f"path={str(path)!r}", f"the file could not be written: {error.strerror or error}")
