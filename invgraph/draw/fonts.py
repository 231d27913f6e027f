"""Fonts of matplotlib that have the letters of a text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_PLAIN = re.compile(r"sans|gothic|hei\b|kaku|gulim|nanum", re.IGNORECASE)
_EMPTY = re.compile(r"last ?resort|blank", re.IGNORECASE)
"""Fonts that have every letter, as the same sign or as none."""
_REGULAR, _BOLD = 400, 700


def set_fonts(texts: Iterable[Any], where: str, stacklevel: int) -> None:
    """Give texts of matplotlib fonts that have their letters, such as Chinese, Japanese and Korean ones.

    matplotlib's own font comes first, and texts that need no other stay as they are. A letter that no font has becomes
    the replacement character, with a warning that says so.

    Arguments:
        texts: Texts of matplotlib.
        where: Name of the caller, for the warning.
        stacklevel: Stack level of ``warnings.warn``, counted from the caller of this function.
    """
    from matplotlib.font_manager import FontProperties

    own = list(FontProperties().get_family())
    letters_of = {text: _letters(text.get_text()) for text in texts}
    known = _known(own, set().union(*letters_of.values()))
    missing = {text: letters - known for text, letters in letters_of.items() if letters - known}
    others, lost = _find(set().union(*missing.values()))
    table = str.maketrans(dict.fromkeys(lost, "\N{REPLACEMENT CHARACTER}"))
    for text, letters in missing.items():
        used = [family for family, has in others.items() if has & letters]
        text.set(family=[*own, *used], text=text.get_text().translate(table))
        if any(_BOLD not in _faces(family) for family in used):
            text.set_weight("normal")
    if lost:
        shown = "".join(sorted(lost)[:20]) + ("..." if len(lost) > 20 else "")
        warnings.warn(
            f"{where}: no installed font has the letters {shown}, which become \N{REPLACEMENT CHARACTER} in the "
            "picture; install one that has them, such as Noto Sans CJK, or draw a .svg, whose viewer chooses the font",
            stacklevel=stacklevel + 1,
        )


def _letters(text: str) -> set[str]:
    return {letter for letter in text if letter.isprintable() and not letter.isspace()}


def _find(letters: set[str]) -> tuple[dict[str, set[str]], set[str]]:
    """Return families of fonts, each with the letters that it is there for, and the letters that none has."""
    found, lost = _choose(letters)
    if lost and _add_new_fonts():
        found, lost = _choose(letters)
    return found, lost


def _choose(letters: set[str]) -> tuple[dict[str, set[str]], set[str]]:
    from matplotlib.font_manager import fontManager

    names = {entry.name for entry in fontManager.ttflist if not _EMPTY.search(entry.name)}
    found: dict[str, set[str]] = {}
    for family in sorted(names, key=lambda name: (_PLAIN.search(name) is None, name)):
        if not letters:
            break
        faces = _faces(family)
        files = [faces[min(faces, key=lambda weight: abs(weight - kind))] for kind in (_REGULAR, _BOLD) if faces]
        has = _in_files(files, letters) if files else set()
        if has:
            found[family], letters = has, letters - has
    return found, letters


def _faces(family: str) -> dict[int, str]:
    """Return the files of a family's upright fonts by their weights."""
    from matplotlib.font_manager import fontManager, weight_dict

    faces = {}
    for entry in fontManager.ttflist:
        if entry.name == family and entry.style == "normal":
            weight = weight_dict[entry.weight] if isinstance(entry.weight, str) else entry.weight
            faces[weight] = entry.fname
    return faces


def _known(families: list[str], letters: set[str]) -> set[str]:
    """Return those of the letters that families of matplotlib's settings have, in regular and in bold type."""
    from matplotlib.font_manager import FontProperties, findfont

    found: set[str] = set()
    for name in families:
        files = [findfont(FontProperties(family=[name], weight=weight)) for weight in (_REGULAR, _BOLD)]
        found |= _in_files(files, letters)
    return found


def _in_files(files: Sequence[str], letters: set[str]) -> set[str]:
    """Return those of the letters that all files of fonts have."""
    from matplotlib.font_manager import get_font

    try:
        fonts = [get_font(file) for file in files]
    except (OSError, RuntimeError):  # a file is gone or damaged
        return set()
    return {letter for letter in letters if all(font.get_char_index(ord(letter)) for font in fonts)}


def _add_new_fonts() -> bool:
    """Tell matplotlib of fonts that were installed after it listed them, which it does only once; True if there are."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    before = len(fontManager.ttflist)
    for file in set(findSystemFonts()) - {entry.fname for entry in fontManager.ttflist}:
        try:
            fontManager.addfont(file)
        except (OSError, RuntimeError, ValueError):  # not a font that matplotlib can draw, such as one of bitmaps
            continue
    return len(fontManager.ttflist) > before
