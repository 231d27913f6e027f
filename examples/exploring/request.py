"""Values of a request of the page, checked, and pictures for its answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class RefusedError(ValueError):
    """A request that can't be answered; the message is shown to the user."""


def number(given: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    """Return a number of a request.

    Raises:
        RefusedError: If it is not a number from ``low`` to ``high``.
    """
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RefusedError(f"{name}: {value!r} is not a number from {low:g} to {high:g}")
    return float(value)


def whole(given: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    """Return a whole number of a request.

    Raises:
        RefusedError: If it is not a whole number from ``low`` to ``high``.
    """
    value = number(given, name, low, high, default)
    if value != int(value):
        raise RefusedError(f"{name}: {value!r} is not a whole number")
    return int(value)


def as_url(pixels: NDArray[np.uint8], kind: str = "PNG") -> str:
    """Encode pixels, (H, W) or (H, W, 3), as a data URL of a PNG or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
