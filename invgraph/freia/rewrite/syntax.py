"""Questions about parts of a script."""

from __future__ import annotations

import re

import libcst as cst

from invgraph.freia.rewrite.names import dotted


def keys_of(value: cst.BaseExpression) -> set[str] | None:
    """Return the keys of a dict that is written out; None for anything else."""
    if isinstance(value, cst.Call) and dotted(value.func) == "dict":
        names = [argument.keyword for argument in value.args]
        return None if None in names else {name.value for name in names if name is not None}
    if isinstance(value, cst.Dict) and all(isinstance(element, cst.DictElement) for element in value.elements):
        keys = [element.key for element in value.elements if isinstance(element, cst.DictElement)]
        return {str(key.raw_value) for key in keys if isinstance(key, cst.SimpleString)}
    return None


def key_set_by(target: cst.CSTNode) -> tuple[str, str] | None:
    """Return a name and a key for a target such as ``kw["cond"]``; None for other targets."""
    if not isinstance(target, cst.Subscript) or not isinstance(target.slice[0].slice, cst.Index):
        return None
    key = target.slice[0].slice.value
    return (dotted(target.value), str(key.raw_value)) if isinstance(key, cst.SimpleString) else None


def is_in_branch(around: list[cst.CSTNode]) -> bool:
    """True if the statements around one hold a branch that may never be taken, unlike one on the variable of a loop."""
    loops: set[str] = set()
    for statement in around:
        if isinstance(statement, cst.For):
            loops |= _names(statement.target)
        elif isinstance(statement, cst.Match) or (isinstance(statement, cst.If) and not _names(statement.test) & loops):
            return True
    return False


def _names(expression: cst.BaseExpression) -> set[str]:
    return set(re.findall(r"\w+", dotted(expression)))


def takes_rev(node: cst.ClassDef) -> bool:
    """True if a class has a method with an argument ``rev``, as FrEIA's layers have."""
    methods = [part for part in node.body.body if isinstance(part, cst.FunctionDef)]
    return any(param.name.value == "rev" for method in methods for param in method.params.params)
