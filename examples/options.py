"""Values of the options of the examples: numbers above zero, and folders that can be written to."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path


def positive(text: str) -> int:
    """Return a whole number above zero; ``type`` of an option.

    Raises:
        ArgumentTypeError: If the text is another one, which argparse prints with the name of the option.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def count(text: str) -> int:
    """Return a whole number from zero; ``type`` of an option.

    Raises:
        ArgumentTypeError: If the text is another one.
    """
    return 0 if text == "0" else positive(text)


def above_zero(text: str) -> float:
    """Return a finite number above zero; ``type`` of an option.

    Raises:
        ArgumentTypeError: If the text is another one.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above zero")
    return value


def prepare_folder(path: Path) -> None:
    """Create the folder given as ``--out``, and check that files can be written to it, before hours of computation.

    Raises:
        OSError: If it can't be created or written to, with advice.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OSError(f"{path}: no files can be written to this folder ({reason}); choose another --out") from error
