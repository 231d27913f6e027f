"""Drawings of networks under the names of FrEIA's development version."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from invgraph.checkpoint.atomic_file import as_path, require_regular
from invgraph.errors import DependencyError
from invgraph.graph.graph import Graph


def plot(graph: Graph, path: str | os.PathLike[str], filename: str) -> None:
    """Draw a graph into two files of a folder: ``filename`` in graphviz's language, and ``filename.pdf``.

    Raises:
        CheckpointError: If something other than a file has this name.
        GraphError: If the folder is missing, or the file can't be written.
        DependencyError: If the program ``dot`` of graphviz, which makes the PDF, is not installed, or fails.
    """
    source = as_path("plot", Path(path, filename))
    require_regular("plot", source, "nothing was written")
    named = source.with_name(f"{source.name}.dot")
    graph.draw(named)
    named.replace(source)
    program = shutil.which("dot")
    advice = f"install graphviz; {source} is written; or write inn.graph.draw('graph.svg'), which needs nothing"
    if program is None:
        raise DependencyError("plot", "no program dot", advice)
    command = [program, "-Tpdf", str(source), "-o", f"{source}.pdf"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DependencyError("plot", f"dot failed: {result.stderr.strip()}", advice)
