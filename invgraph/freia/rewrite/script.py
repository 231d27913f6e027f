"""One script from FrEIA to the native API."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from invgraph.errors import ArgumentError
from invgraph.freia.rewrite.lines import OneStatementEach
from invgraph.freia.rewrite.survey import Found, Survey
from invgraph.freia.rewrite.transform import Transform


@dataclass(frozen=True)
class Rewritten:
    """A script after it was rewritten.

    Attributes:
        code: Its source.
        native: True if its networks are native graphs; if not, they run on ``invgraph.freia``.
        notes: Number of comments that say what is left to do.
    """

    code: str
    native: bool
    notes: int


def rewrite(source: str) -> Rewritten:
    """Return a script for FrEIA in the native API, with the same numbers.

    Networks become ``ig.Graph``, their calls ``graph(x, c)`` and ``graph.inverse(z, c)``; layers keep FrEIA's
    arithmetic in ``ig.freia.node``, but for those that native layers compute alike. A script that does more
    with its networks than native graphs can do keeps FrEIA's classes, on this library's engine, and comments say where
    and why.

    Arguments:
        source: Source of the script.

    Raises:
        ArgumentError: It is not valid Python.
    """
    try:
        wrapper = cst.metadata.MetadataWrapper(cst.parse_module(source).visit(OneStatementEach()))
    except cst.ParserSyntaxError as error:
        raise ArgumentError("rewrite", f"line {error.raw_line}", "the script is not valid Python") from error
    found = Found()
    for _ in range(2):
        found.blocks.clear()
        found.advice.clear()
        wrapper.visit(Survey(found))
    native = bool(found.networks) and not found.blocks
    code = wrapper.visit(Transform(found, native)).code
    notes = found.advice if native else found.blocks
    return Rewritten(code, native, sum(map(len, notes.values())))
