"""FrEIA's layers that native ones compute alike."""

from __future__ import annotations

import libcst as cst

from invgraph.freia.rewrite.names import dotted

NATIVE: dict[str, tuple[str, dict[str, str]]] = {
    "Flatten": ("Flatten", {}),
    "Reshape": ("Reshape", {"output_dims": "shape", "target_dim": "shape"}),
    "Split": ("Split", {"section_sizes": "sizes", "dim": "dim"}),
    "Concat": ("Concat", {"dim": "dim"}),
    "IRevNetDownsampling": ("Squeeze", {}),
    "HaarDownsampling": ("Haar", {"order_by_wavelet": "order_by_wavelet"}),
}
"""Layers that compute the same under another name, and the names of their arguments."""


def native_args(kind: str, args: cst.BaseExpression | None) -> str | None:
    """Return the arguments of a native layer; None if FrEIA's layer has no exact counterpart with them."""
    if kind not in NATIVE or (kind == "Split" and args is None):
        return None
    names, items = NATIVE[kind][1], []
    if args is not None and not isinstance(args, cst.Dict):
        return None
    for element in args.elements if args is not None else ():
        if not isinstance(element, cst.DictElement) or not isinstance(element.key, cst.SimpleString):
            return None
        name = names.get(str(element.key.raw_value))
        if name is None or (name == "sizes" and not isinstance(element.value, (cst.List, cst.Tuple))):
            return None
        items.append(f'"{name}": {dotted(element.value)}')
    if kind == "Split" and not any(item.startswith('"sizes"') for item in items):
        return None
    return f"{{{', '.join(items)}}}"
