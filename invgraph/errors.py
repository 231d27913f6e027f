"""Exceptions of invgraph: every error that it raises is one of these."""

from __future__ import annotations

from typing import Self


class InvgraphError(Exception):
    """Base class of all errors; the message has three lines: where, what was given, what to do.

    Arguments:
        where: Node and layer, or function, that raises the error. A whole message if it is alone, as when another
            package raises the error again with a text of its own (Pyro does).
        given: Description of the offending value. Default: none.
        advice: Problem with the value, and how to fix it. Default: none.
    """

    def __init__(self, where: str, given: str = "", advice: str = "") -> None:
        super().__init__(where, given, advice)
        self.where = where
        self.given = given
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.where}\n  given: {self.given}\n  {self.advice}" if self.given or self.advice else self.where

    def at(self, where: str) -> Self:
        """Return the same error with the caller's location in front, such as the node that holds a layer."""
        return type(self)(f"{where}: {self.where}", self.given, self.advice)


class GraphError(InvgraphError, ValueError):
    """A node, layer, graph or call was given a value out of range, or values that do not fit together."""


class ArgumentError(InvgraphError, TypeError):
    """An argument has the wrong type, is unknown, or is missing."""


class ShapeError(InvgraphError, ValueError):
    """A call received the wrong number of tensors, or tensors of the wrong shape or batch size."""


class InputTypeError(InvgraphError, TypeError):
    """A call received something other than dense floating-point tensors of the module's dtype and device."""


class CheckpointError(InvgraphError, RuntimeError):
    """A checkpoint is damaged, belongs to another graph, or can't be written."""


class NumericsError(InvgraphError, ArithmeticError):
    """Values are outside the domain of a layer, or not finite."""


class ContractError(InvgraphError, AssertionError):
    """A layer violates the contract of invertible layers; raised by :func:`invgraph.testing.check_invertible`."""


class ClosedFormError(InvgraphError, NotImplementedError):
    """A distribution has no closed form of what was asked for, such as the mean of a flow."""


class DependencyError(InvgraphError, ImportError):
    """A feature needs a package that is not installed."""
