"""One script from FrEIA to the native API."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from invgraph.errors import ArgumentError
from invgraph.freia.rewrite.found import Found, Note
from invgraph.freia.rewrite.lines import OneStatementEach
from invgraph.freia.rewrite.survey import Survey
from invgraph.freia.rewrite.transform import Transform
from invgraph.freia.rewrite.unread import Unread

_RESEEDS = (
    "FrEIA reseeds numpy at each PermuteRandom(seed=...), and what is drawn later follows from it: for FrEIA's numbers "
    "from scratch, call invgraph.freia.seeds_like_freia() first"
)


@dataclass(frozen=True)
class Rewritten:
    """A script after it was rewritten.

    Attributes:
        code: Its source.
        native: True if its networks are native graphs.
        mixed: True if its networks of one kind are native graphs, and those of the other run on ``invgraph.freia``.
        notes: Number of comments that say what is left to do.
    """

    code: str
    native: bool
    mixed: bool
    notes: int


def rewrite(source: str) -> Rewritten:
    """Return a script for FrEIA in the native API, with the numbers that it has with ``invgraph.freia``.

    Networks become ``ig.Graph``, their calls ``graph(x, c)`` and ``graph.inverse(z, c)``; layers keep FrEIA's
    arithmetic in ``ig.freia.node``, but for those that native layers compute alike. A script that does more
    with its networks of nodes, or with its SequenceINNs, than native graphs can do keeps FrEIA's classes for these, on
    this library's engine, and comments say where and why.

    Arguments:
        source: Source of the script.

    Raises:
        ArgumentError: If it is not valid Python.
    """
    try:
        wrapper = cst.metadata.MetadataWrapper(cst.parse_module(source).visit(OneStatementEach()))
    except cst.ParserSyntaxError as error:
        raise ArgumentError("rewrite", f"line {error.raw_line}", "the script is not valid Python") from error
    found = Found()
    wrapper.visit(found.lists)
    for _ in range(2):
        found.notes.clear()
        wrapper.visit(Survey(found))
    unread = Unread(found.starred)
    wrapper.visit(unread)
    found.notes += unread.notes(found.lists.bound)
    if found.reseeding is not None and found.draws:
        found.notes.append(Note(found.reseeding, _RESEEDS))
    code = wrapper.visit(Transform(found)).code
    native, kept = bool(found.natives()), bool(found.kept())
    return Rewritten(code, native and not kept, native and kept, sum(map(len, found.comments().values())))
