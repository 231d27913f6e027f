"""Meaning of the names in a script."""

from __future__ import annotations

import importlib

import libcst as cst
from libcst.metadata import QualifiedNameProvider

LAYERS = ("InvertibleModule", "_BaseCouplingBlock")
GRAPHS = ("GraphINN", "ReversibleGraphNet")
SEQUENCES = ("SequenceINN", "ReversibleSequential")


class Resolver(cst.MetadataDependent):
    """Knows which names of a script come from FrEIA.

    Attributes:
        starred: Names that star imports bring.
    """

    METADATA_DEPENDENCIES = (QualifiedNameProvider,)
    starred: set[str]

    def freia(self, node: cst.BaseExpression | None) -> str:
        """Return the last part of the name in FrEIA that an expression stands for; empty if it is none of FrEIA's."""
        if node is None:
            return ""
        return self._in_package(node, "FrEIA.").rpartition(".")[2] or self._starred(node)

    def numpy_random(self, node: cst.BaseExpression) -> str:
        """Return the name in numpy.random that an expression stands for; empty if it is none."""
        return self._in_package(node, "numpy.random.").partition(".")[0]

    def _in_package(self, node: cst.BaseExpression, start: str) -> str:
        for found in self.get_metadata(QualifiedNameProvider, node, ()) or ():
            if found.name.startswith(start):
                return found.name.removeprefix(start)
        return ""

    def _starred(self, node: cst.BaseExpression) -> str:
        return node.value if isinstance(node, cst.Name) and node.value in self.starred else ""


def star_names(node: cst.ImportFrom) -> set[str]:
    """Return the names that ``from FrEIA.x import *`` brings; none for other imports."""
    if not isinstance(node.names, cst.ImportStar) or node.module is None:
        return set()
    name = dotted(node.module)
    if name != "FrEIA" and not name.startswith("FrEIA."):
        return set()
    return set(importlib.import_module(f"invgraph.freia{name[5:]}").__all__)


def dotted(node: cst.CSTNode) -> str:
    """Return the source text of an expression, such as ``self.inn``."""
    return cst.Module([]).code_for_node(node)


def last_name(node: cst.CSTNode) -> str:
    """Return the last part of a dotted name."""
    return dotted(node).rpartition(".")[2]
