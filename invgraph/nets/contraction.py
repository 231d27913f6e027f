"""Contractive network, used by residual flows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, linear, silu

from invgraph.core.derived_weights import renew_weights
from invgraph.core.subnet import Subnet, spread_vector
from invgraph.shapes import Shape, Tensors

_SLOPE = 1.1  # silu'(x) stays below 1.0999
_CONVOLVE = (conv1d, conv2d, conv3d)
_SQUARINGS = 6


class Linearization(NamedTuple):
    """Linearization of a network at a point: its weights, and the derivatives of its activations."""

    weights: Tensors
    slopes: Tensors


class Contraction(Subnet):
    r"""Fully connected layers or convolutions whose Lipschitz constant with respect to x stays below a bound.

    Each weight W is divided by :math:`\max(1, \sigma(W) / c)`, where sigma is an upper bound of its largest singular
    value, at most a few percent too large. It is computed from powers of :math:`W^\top W`, so it depends on W only and
    needs no state. The activation is :math:`\text{silu}(x) / 1.1`, which is smooth and has derivatives below 1. The
    conditions are added after the first weight and are not bounded.

    Arguments:
        x_shape: Shape of the data.
        cond_shapes: Shapes of the conditions.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        kernel: Kernel size of the convolutions.
        bound: Bound of the Lipschitz constant.
    """

    def __init__(
        self, x_shape: Shape, cond_shapes: tuple[Shape, ...], hidden: int, layers: int, kernel: int, bound: float
    ) -> None:
        super().__init__()
        self.axes = len(x_shape) - 1
        self.kernel = kernel if self.axes else 1
        sizes = (x_shape[0], *(hidden,) * layers, x_shape[0])
        self.each = bound ** (1 / (layers + 1))
        self.weights = nn.ParameterList(self._weight(a, b) for a, b in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes[1:])
        nn.init.zeros_(self.weights[-1])
        self.conditions = nn.ParameterList(
            self._weight(shape[0], hidden) if len(shape) > 1 else nn.init.xavier_uniform_(torch.empty(hidden, shape[0]))
            for shape in cond_shapes
        )

    def _weight(self, channels_in: int, channels_out: int) -> Tensor:
        return nn.init.xavier_uniform_(torch.empty(channels_out, channels_in, *(self.kernel,) * self.axes))

    def precompute(self, cs: Tensors) -> Tensors:
        total: Tensor | None = None
        for index, c in enumerate(cs):  # torch 2.8 can't compile zip over a ParameterList
            part = spread_vector(self._apply_weight(c, self.conditions[index]), self.axes + 2)
            total = part if total is None else total + part
        return () if total is None else (total,)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        return self.run(x, given, self.bounded_weights())

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        return self.weights[-1], self.biases[-1]

    def bounded_weights(self) -> Tensors:
        """Return the weights, scaled so that the Lipschitz constant of the network stays below its bound."""
        for tensors in (self.weights, self.biases):  # lists, which nobody calls
            renew_weights(tensors)
        # The norm of a convolution is at most that of its matrix from patches to pixels, times the root of its taps.
        taps = math.sqrt(self.kernel**self.axes)
        return tuple(w / (norm_bound(w.flatten(1)) * (taps / self.each)).clamp_min(1) for w in self.weights)

    def run(self, x: Tensor, given: Tensors, weights: Tensors) -> Tensor:
        """Return the output, for the weights that :meth:`bounded_weights` returned."""
        return self._run_layers(x, given, weights)[0]

    def linearize(self, x: Tensor, given: Tensors, weights: Tensors) -> tuple[Tensor, Linearization]:
        """Return the output, and the linearization at x that :meth:`push` takes."""
        out, hidden = self._run_layers(x, given, weights)
        return out, Linearization(weights, tuple(_slope(h) for h in hidden))

    def push(self, v: Tensor, at: Linearization) -> Tensor:
        """Return the product of Jacobian and vector, for each sample."""
        for index, weight in enumerate(at.weights):
            v = self._apply_weight(v if index == 0 else v * at.slopes[index - 1], weight)
        return v

    def jacobian(self, at: Linearization, shape: Shape) -> Tensor:
        """Return the whole Jacobian of each sample, ``(B, D, D)``."""
        dims, batch, weight = math.prod(shape), at.slopes[0].shape[0], at.weights[0]
        basis = torch.eye(dims, dtype=weight.dtype, device=weight.device).view(dims, 1, *shape)
        slopes = tuple(slope.expand(dims, *slope.shape).flatten(0, 1) for slope in at.slopes)
        columns = self.push(basis.expand(dims, batch, *shape).flatten(0, 1), Linearization(at.weights, slopes))
        return columns.view(dims, batch, dims).permute(1, 2, 0)

    def _run_layers(self, x: Tensor, given: Tensors, weights: Tensors) -> tuple[Tensor, list[Tensor]]:
        """Return the output, and the inputs of the activations."""
        h, hidden = x, []
        for index, weight in enumerate(weights):
            if index:
                hidden.append(h)
                h = silu(h) / _SLOPE
            h = self._apply_weight(h, weight) + spread_vector(self.biases[index][None], self.axes + 2)
            if index == 0 and given:
                h = h + given[0]
        return h, hidden

    def _apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        if weight.ndim == 2:
            return linear(x, weight)
        out: Tensor = _CONVOLVE[self.axes - 1](x, weight, padding=self.kernel // 2)
        return out


def _slope(h: Tensor) -> Tensor:
    """Return the derivative of the activation."""
    s = torch.sigmoid(h)
    return s * (1 + h * (1 - s)) / _SLOPE


def norm_bound(matrix: Tensor) -> Tensor:
    r"""Return an upper bound of the largest singular value, tight up to a factor of :math:`\text{rank}^{1/128}`.

    It is a root of the Frobenius norm of :math:`(W W^\top)^{2^k}`, which is rescaled in each squaring to avoid overflow
    (Gram iteration). That of a zero matrix is 0, and so are all its derivatives.
    """
    m = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    largest = m.detach().abs().amax()
    # The squares of huge and tiny numbers are out of range, and a norm has no second derivative at zero.
    m = torch.where(largest > 0, m / torch.where(largest > 0, largest, 1.0), 1.0)
    log_scale = m.new_zeros(())
    for _ in range(_SQUARINGS):
        norm = torch.linalg.vector_norm(m)
        m = m / norm
        m = m @ m.t()
        log_scale = 2 * (log_scale + norm.log())
    log_norm = torch.linalg.vector_norm(m).log()
    return largest * torch.exp((log_norm + log_scale) / 2**_SQUARINGS)
