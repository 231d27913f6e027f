"""Names of nodes: keys of their parameters, and words in tables, pictures and errors."""

from __future__ import annotations

from unicodedata import category

from invgraph.errors import ArgumentError, GraphError
from invgraph.graph.layer_dict import ModuleDict

_KEYED = ("node", "feature", "chain")  # their names are keys of a ModuleDict, which reserves some
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of a letter, and separators of lines


def check_name(kind: str, name: object) -> str | None:
    """Return the name of a node, or of a chain; refuse what can't be one."""
    if name is None:
        return None
    where, given = kind, f"name={name!r}"
    if not isinstance(name, str):
        raise ArgumentError(where, given, f"a name must be a str, not {type(name).__name__}")
    if not name:
        raise GraphError(where, given, "a name can't be empty; leave it out for an automatic one")
    if any(category(letter) in _UNPRINTABLE for letter in name):
        raise GraphError(where, given, "a name stands on one line, without tabs and other control characters")
    if "." in name:
        raise GraphError(where, given, "dots are not allowed in names: they are keys of the state_dict")
    if kind in _KEYED and (hasattr(ModuleDict, name) or name in ModuleDict({}).__dict__):
        raise GraphError(where, given, "the name is an attribute of torch.nn.Module; choose another")
    return name
