"""Contents of a script, which the survey fills in and the transformer reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst

from invgraph.freia.rewrite.lists import Lists
from invgraph.freia.rewrite.names import SEQUENCES

ALL = frozenset({"graphs", "chains"})
"""The kinds of networks: those of nodes, and SequenceINNs. Each kind becomes native, or stays FrEIA's, as a whole."""


@dataclass
class Chain:
    """A SequenceINN that a script builds.

    Attributes:
        start: The statement that makes it.
        parents: The statements around it.
        last: The last statement of the same block that appends to it.
        conditions: Source of the shape of each condition, by its number.
        layers: The number of the condition of each layer, or None, and True for a layer that is appended in a branch.
    """

    start: cst.CSTNode
    parents: list[cst.CSTNode]
    last: cst.CSTNode
    conditions: dict[int, str] = field(default_factory=dict)
    layers: set[tuple[int | None, bool]] = field(default_factory=set)

    def may_lack(self, number: int) -> bool:
        """True if a condition may have no reader: all its layers are appended in branches, and there are others."""
        return (number, False) not in self.layers and any(each != number for each, _ in self.layers)


@dataclass(frozen=True)
class Note:
    """A comment on a statement.

    Attributes:
        statement: The statement.
        message: What to do.
        blocks: Kinds of networks that stay FrEIA's because of it.
        native: Kind of network that it is about if that becomes native; None if it stands in any case.
    """

    statement: cst.CSTNode
    message: str
    blocks: frozenset[str] = frozenset()
    native: str | None = None


@dataclass
class Found:
    """Contents of a script.

    Attributes:
        networks: Names of networks, such as ``self.inn``, and the class in FrEIA, the function that builds it, or the
            name that it has in its own class.
        chains: Those SequenceINNs, by name, that are built where they are made.
        builders: Names of functions and methods that return a network, and the network's own name there, if any.
        called: Last parts of the names that are called.
        nodes: Names of variables that hold nodes.
        splits: Names of variables that hold nodes of several outputs.
        several: True if there are nodes that have, or may have, several outputs.
        members: Names of attributes that hold networks, by the name of the class.
        dicts: Keys of variables that hold dicts written out.
        lists: Number of elements of variables.
        conditions: Number of conditions that are declared in the function that builds a network, by the network's name
            or that of the function; 0 if it is not known.
        starred: Names that star imports bring.
        notes: Comments to be made.
        reseeding: The first statement in which FrEIA reseeds numpy.
        draws: True if layers or the script draw from numpy's global generator.
    """

    networks: dict[str, str] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    builders: dict[str, str] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)
    several: bool = False
    members: dict[str, set[str]] = field(default_factory=dict)
    dicts: dict[str, set[str]] = field(default_factory=dict)
    lists: Lists = field(default_factory=Lists)
    conditions: dict[str, int] = field(default_factory=dict)
    starred: set[str] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)
    reseeding: cst.CSTNode | None = None
    draws: bool = False

    def conditions_of(self, name: str) -> list[int] | None:
        """Return the numbers of the conditions of a chain; None for other networks."""
        chain = next((self.chains[each] for each in self._names(name) if each in self.chains), None)
        return None if chain is None else sorted(chain.conditions)

    def declared(self, name: str) -> int:
        """Return the number of conditions of a network of nodes; 0 if it is not known."""
        return next((self.conditions[each] for each in self._names(name) if each in self.conditions), 0)

    def kind(self, name: str) -> str:
        """Return the kind of a network, or of what a function returns: ``"graphs"`` or ``"chains"``."""
        names = self._names(name)
        chained = any(each in self.chains or self.networks.get(each) in SEQUENCES for each in names)
        return "chains" if chained else "graphs"

    def _names(self, name: str) -> list[str]:
        """Return a network's name, those of what it comes from, and its own name there."""
        names = [name]
        for each in names:
            origins = (self.networks.get(each, ""), self.builders.get(each, ""))
            names += [origin for origin in origins if origin and origin not in names]
        return names

    def kept(self) -> frozenset[str]:
        """Return the kinds of networks that stay FrEIA's."""
        return frozenset().union(*(note.blocks for note in self.notes))

    def natives(self) -> frozenset[str]:
        """Return the kinds of networks in the script that become native graphs."""
        there = frozenset(self.kind(name) for name in (*self.networks, *self.builders))
        return there - self.kept()

    def comments(self) -> dict[cst.CSTNode, list[str]]:
        """Return what to write above each statement."""
        natives = self.natives()
        found: dict[cst.CSTNode, list[str]] = {}
        for note in self.notes:
            listed = found.setdefault(note.statement, [])
            wanted = note.native is None or note.native in natives
            if wanted and note.message not in listed:
                listed.append(note.message)
        return found
