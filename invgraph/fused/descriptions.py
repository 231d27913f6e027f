"""Descriptions from which kernels compute: of an affine map, a fully connected network, and a coupling of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from invgraph.numerics.soft_clamp import Activation, Squash
from invgraph.shapes import Tensors

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class AffineMap(NamedTuple):
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


class Scales(NamedTuple):
    """Scales of an affine map, for its gradient.

    Attributes:
        scale: ``exp(s)``.
        s: The clamped log-scale; None for the atan, whose slope does not depend on it.
    """

    scale: Tensor
    s: Tensor | None


class MLPParameters(NamedTuple):
    """The parameters of a network ``W_n relu(... relu(W_1 x + b_1 + sum of W_c c)) + b_n``.

    Attributes:
        weights: W_1 to W_n.
        biases: b_1 to b_n.
        condition_weights: W_c, one for each condition.
    """

    weights: Tensors
    biases: Tensors
    condition_weights: Tensors


class Kept(NamedTuple):
    """Values that the gradient of one side of a coupling needs, besides its input and output.

    Attributes:
        hidden: The hidden layers of the network.
        raw: Log-scales before the clamp. Shifts are not kept, so these are copied out of the network's output.
        scales: The scales.
    """

    hidden: Sequence[Tensor]
    raw: Tensor
    scales: Scales


class CouplingLayout(NamedTuple):
    """An affine coupling without its tensors, which come in one tuple: the conditions, then each side's parameters.

    Side k transforms part k of the channels, given the other part; a coupling whose first side is the second part has
    no kernel.

    Attributes:
        sizes: Channels of the two parts.
        order: The sides, in the order in which they are transformed.
        transform: The map of every side.
        layers: Number of layers of each side's network.
        conditions: Number of conditions.
    """

    sizes: list[int]
    order: Sequence[int]
    transform: AffineMap
    layers: tuple[int, ...]
    conditions: int
