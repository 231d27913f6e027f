"""The exceptions of invgraph: every error a user can cause is one of these."""

from __future__ import annotations

from typing import Self


class InvgraphError(Exception):
    """Base of all exceptions of this library, told in three lines.

    Arguments:
        where: the node and layer, or the function, that refuses.
        given: what it was given.
        advice: what is wrong with that, and what to do.
    """

    def __init__(self, where: str, given: str, advice: str) -> None:
        super().__init__(where, given, advice)
        self.where = where
        self.given = given
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.where}\n  given: {self.given}\n  {self.advice}"

    def at(self, where: str) -> Self:
        """The same error, told from the place of the caller, e.g. the node that holds a layer."""
        return type(self)(f"{where}: {self.where}", self.given, self.advice)


class GraphError(InvgraphError, ValueError):
    """A node, layer or graph was declared with values that do not fit together."""


class ArgumentError(InvgraphError, TypeError):
    """A declaration was given an argument of the wrong type, an unknown one, or lacks one."""


class ShapeError(InvgraphError, ValueError):
    """A call got tensors of the wrong number, shape or batch size."""


class InputTypeError(InvgraphError, TypeError):
    """A call got something other than dense floating-point tensors of the module's dtype and device."""


class CheckpointError(InvgraphError, RuntimeError):
    """A checkpoint is damaged, was made by another graph, or can't be written."""


class NumericsError(InvgraphError, ArithmeticError):
    """Numbers left the domain of a layer, or are no longer finite."""


class ContractError(InvgraphError, AssertionError):
    """A layer breaks the contract that every layer keeps; raised by :func:`invgraph.testing.check_invertible`."""


class DependencyError(InvgraphError, ImportError):
    """Something was asked for that needs a package which is not installed."""
