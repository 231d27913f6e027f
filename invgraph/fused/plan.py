"""Description of an affine coupling of fully connected networks, from which its kernels compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from invgraph.numerics.soft_clamp import Activation, Squash
from invgraph.shapes import Tensors

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class MLPKernel(NamedTuple):
    """The parameters of a network ``W_n relu(... relu(W_1 x + b_1 + sum of W_c c)) + b_n``."""

    weights: Tensors
    biases: Tensors
    condition_weights: Tensors
    """W_c, one for each condition."""


class AffineKernel(NamedTuple):
    """``x exp(s) + t``, or its inverse ``(x - t) / exp(s)``; s (clamped) and t are the two parameters per element.

    Attributes:
        formula: The same, in operations that autograd differentiates to any order.
        clamp: Bound of s.
        activation: Kind of the clamp.
        squash: The clamp, by its steps.
        inverse: True for the inverse.
    """

    formula: Formula
    clamp: float
    activation: Activation
    squash: Squash
    inverse: bool


class Kept(NamedTuple):
    """Values that the gradient of one side needs: the network's hidden layers, the scales before and after the clamp.

    Shifts are not kept, so the scales are taken out of the network's output.
    """

    hidden: Sequence[Tensor]
    raw: Tensor
    scales: Sequence[Tensor]


class Plan(NamedTuple):
    """A coupling without its tensors, which come in one tuple: the conditions, then each side's parameters."""

    sizes: list[int]
    order: Sequence[int]
    """The sides, in the order in which they are transformed."""
    transform: AffineKernel
    layers: tuple[int, ...]
    """Number of layers of each side's network."""
    conditions: int
