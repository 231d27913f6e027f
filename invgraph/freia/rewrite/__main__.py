"""The command ``python -m invgraph.freia.rewrite script.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invgraph.errors import DependencyError, InvgraphError


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite a script; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m invgraph.freia.rewrite", description=_help())
    parser.add_argument("script", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="file to write; without it, the script is printed")
    options = parser.parse_args(arguments)
    try:
        result = _script().rewrite(options.script.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        print(f"{options.script} is not text in UTF-8", file=sys.stderr)
        return 1
    except (InvgraphError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.output is None:
        print(result.code, end="")
    else:
        options.output.write_text(result.code, encoding="utf-8")
    kind = "native graphs" if result.native else "FrEIA's classes from invgraph.freia"
    kind = f"native graphs and {kind}" if result.mixed else kind
    print(f"{options.script}: {kind}; comments '# invgraph:' to look at: {result.notes}", file=sys.stderr)
    return 0


def _help() -> str:
    """Return what the command does."""
    return (
        "Rewrite a script for FrEIA in the native API where that can be done mechanically; comments that begin with "
        "'# invgraph:' say what to do about the rest."
    )


def _script() -> Any:
    try:
        from invgraph.freia.rewrite import script
    except ImportError as error:
        raise DependencyError("rewrite", "libcst is not installed", "pip install libcst") from error
    return script


if __name__ == "__main__":
    sys.exit(main())
