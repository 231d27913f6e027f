"""DOT and Mermaid text of a picture, for programs that lay it out themselves."""

from __future__ import annotations

from invgraph.draw.boxes import Box, Picture
from invgraph.draw.style import LIGHT

_SHAPES = {"input": "oval", "output": "oval", "condition": "oval", "graph": "box3d"}
_MERMAID = {"input": ("([", "])"), "output": ("([", "])"), "condition": ("([", "])"), "graph": ("[[", "]]")}


def dot(picture: Picture) -> str:
    """Return the picture in graphviz's language."""
    lines = ["digraph {", '  node [fontname="Helvetica", style="filled,rounded", shape=box];',
             '  edge [fontname="Helvetica", fontsize=10];']  # fmt: skip
    lines += _dot_boxes(picture, "n", "  ")
    for tail, head, kind, label in flat_arrows(picture):
        style = f'color="{LIGHT.lines[kind]}"' + (f", label={_quoted(label)}" if label else "")
        lines.append(f"  {tail} -> {head} [{style}];")
    return "\n".join([*lines, "}", ""])


def _dot_boxes(picture: Picture, prefix: str, indent: str) -> list[str]:
    lines: list[str] = []
    for place, box in enumerate(picture.boxes):
        key = f"{prefix}{place}"
        if box.inner is not None:
            lines += [f"{indent}subgraph cluster_{key} {{", f"{indent}  label={_quoted(box.title)}; style=dashed;"]
            lines += _dot_boxes(box.inner, f"{key}_", f"{indent}  ")
            lines.append(f"{indent}}}")
            continue
        fill, edge = LIGHT.boxes[box.kind]
        look = f'fillcolor="{fill}", color="{edge}", shape={_SHAPES.get(box.kind, "box")}'
        lines.append(f"{indent}{key} [label={_quoted(chr(10).join(_texts(box)))}, {look}];")
    return lines


def mermaid(picture: Picture) -> str:
    """Return the picture in the language of Mermaid, which GitHub and many editors draw."""
    lines = ["flowchart TD", *_mermaid_boxes(picture, "n", "  ")]
    for tail, head, kind, label in flat_arrows(picture):
        arrow = "-->" if kind == "data" else "-.->"
        lines.append(f"  {tail} {arrow}" + (f'|"{_entities(label)}"|' if label else "") + f" {head}")
    for kind, (fill, edge) in LIGHT.boxes.items():
        keys = [key for key, box in picture.walk() if box.kind == kind and box.inner is None]
        if keys:
            lines += [f"  classDef {kind}_ fill:{fill},stroke:{edge},color:{LIGHT.text}",
                      f"  class {','.join(keys)} {kind}_"]  # fmt: skip
    return "\n".join([*lines, ""])


def _mermaid_boxes(picture: Picture, prefix: str, indent: str) -> list[str]:
    lines: list[str] = []
    for place, box in enumerate(picture.boxes):
        key = f"{prefix}{place}"
        if box.inner is not None:
            lines.append(f'{indent}subgraph {key} ["{_entities(box.title)}"]')
            lines += [*_mermaid_boxes(box.inner, f"{key}_", f"{indent}  "), f"{indent}end"]
            continue
        left, right = _MERMAID.get(box.kind, ("[", "]"))
        lines.append(f'{indent}{key}{left}"{"<br>".join(map(_entities, _texts(box)))}"{right}')
    return lines


_ENTITIES = str.maketrans(
    {"#": "#35;", "&": "#amp;", "<": "#lt;", ">": "#gt;", '"': "#quot;", "`": "#96;", "\\": "#92;", "\n": "<br>"}
)


def _entities(text: str) -> str:
    r"""Return a text as Mermaid shows it: it reads HTML, Markdown between backticks, and ``\n`` as a break."""
    return text.translate(_ENTITIES)


def flat_arrows(picture: Picture) -> list[tuple[str, str, str, str]]:
    """Return all arrows between boxes that are not repeated blocks: identifiers, kind and label."""
    found: list[tuple[str, str, str, str]] = []
    _collect(picture, "n", found)
    return found


def _collect(picture: Picture, prefix: str, found: list[tuple[str, str, str, str]]) -> None:
    for place, box in enumerate(picture.boxes):
        if box.inner is not None:
            _collect(box.inner, f"{prefix}{place}_", found)
    for arrow in picture.arrows:
        heads = _inside(picture, prefix, *arrow.head, entering=True)
        for tail in _inside(picture, prefix, *arrow.tail, entering=False):
            found += [(tail, head, arrow.kind, arrow.label) for head in heads]


def _inside(picture: Picture, prefix: str, place: int, port: int, *, entering: bool) -> list[str]:
    """Return the boxes that an arrow to or from a box means: those inside it, if it is a repeated block."""
    inner = picture.boxes[place].inner
    key = f"{prefix}{place}"
    if inner is None:
        return [key]
    if entering:
        ends = [arrow.head for arrow in inner.entries if arrow.tail[1] == port]
    else:
        ends = [arrow.tail for arrow in inner.exits if arrow.head[1] == port]
    return [name for end in ends for name in _inside(inner, f"{key}_", *end, entering=entering)]


def _texts(box: Box) -> tuple[str, ...]:
    return (box.title, box.subtitle) if box.subtitle else (box.title,)


def _quoted(text: str) -> str:
    text = text.replace("&", "&amp;")  # graphviz reads entities
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
