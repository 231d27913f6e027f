"""Width of a line of text, estimated, because fonts are unknown until a picture is shown."""

from __future__ import annotations

from unicodedata import east_asian_width

_NARROW = {"fijlt,.:;'|![]()/ ·": 0.31, "rsczJ-": 0.5, "mwMW%@→": 0.9, "ABCDGHKNOQRSUVXYZ&×": 0.7}
_WIDTHS = {letter: width for letters, width in _NARROW.items() for letter in letters}


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a line in a sans-serif font, with some air."""
    units = sum(_WIDTHS.get(letter) or (1.0 if east_asian_width(letter) in "WF" else 0.58) for letter in text)
    return units * size * (1.09 if bold else 1.03)


def shorten(text: str, most: int) -> str:
    """Return the text, with an ellipsis in place of its middle if it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most - most // 3 - 1]}…{text[len(text) - most // 3 :]}"
