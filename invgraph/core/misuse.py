"""Refusal of calls with more than two arguments, or with names that other libraries give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from invgraph.errors import InputTypeError


class CallSide(Protocol):
    """Values that a module takes, and what stands for them in the text of a call."""

    @property
    def shapes(self) -> Sequence[object]: ...

    def placeholder(self) -> str: ...


def surplus_arguments(
    where: str, call: str, source: CallSide, given: CallSide, more: int, named: Mapping[str, object]
) -> InputTypeError:
    """Return the error of such a call, which shows the call that was probably meant.

    Arguments:
        where: The module, for the error.
        call: What calls the module or its method in a line of code.
        source: The values that it takes.
        given: The conditions that it takes.
        more: Number of arguments after the second.
        named: The arguments that were given by a name that it does not know.
    """
    arguments = source.placeholder() + (f", {given.placeholder()}" if given.shapes else "")
    if named:
        names = ", ".join(f"{name}=..." for name in named)
        return InputTypeError(
            where, f"a call with {names}", f"values are given by their place: call {call}({arguments})"
        )
    advice = "values are the first argument and conditions the second, several of either as a tuple"
    return InputTypeError(where, f"a call with {2 + more} arguments", f"{advice}: call {call}({arguments})")
