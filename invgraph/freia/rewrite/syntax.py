"""Questions about parts of a script."""

from __future__ import annotations

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


def takes_rev(node: cst.ClassDef) -> bool:
    """True if a class has a method with an argument ``rev``, as FrEIA's layers have."""
    methods = [part for part in node.body.body if isinstance(part, cst.FunctionDef)]
    return any(param.name.value == "rev" for method in methods for param in method.params.params)
