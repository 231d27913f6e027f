"""A network that contracts: what residual flows are made of."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, linear, silu

from invgraph.core.subnet import Subnet, spread_vector
from invgraph.shapes import Shape, Tensors

_SLOPE = 1.1  # silu'(x) stays below 1.0999
_CONVOLVE = (conv1d, conv2d, conv3d)
_SQUARINGS = 6


class Linearization(NamedTuple):
    """Where a network was evaluated: its weights there, and the slopes of the activations."""

    weights: Tensors
    slopes: Tensors


class Contraction(Subnet):
    r"""Fully connected layers or convolutions of which the Lipschitz constant in x stays below a bound.

    Each weight W is divided by :math:`\max(1, \sigma(W) / c)`, where sigma is an upper bound of its largest singular
    value, from powers of :math:`W^\top W` (never below it, a few per cent above; a function of W alone, no state). The
    activation is :math:`\text{silu}(x) / 1.1`, which is smooth and has slopes below 1. Conditions enter in the first
    layer, without a bound.
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
        return self.run(x, given, self.bounded())

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        return self.weights[-1], self.biases[-1]

    def bounded(self) -> Tensors:
        """The weights, divided so that the network contracts."""
        # A convolution's norm is at most that of its matrix from patches to pixels, times the root of the taps.
        taps = math.sqrt(self.kernel**self.axes)
        return tuple(w / (norm_bound(w.flatten(1)) * (taps / self.each)).clamp_min(1) for w in self.weights)

    def run(self, x: Tensor, given: Tensors, weights: Tensors) -> Tensor:
        """The output, for weights that :meth:`bounded` returned."""
        return self._walk(x, given, weights)[0]

    def linearize(self, x: Tensor, given: Tensors, weights: Tensors) -> tuple[Tensor, Linearization]:
        """The output, and what :meth:`push` needs."""
        out, hidden = self._walk(x, given, weights)
        return out, Linearization(weights, tuple(_slope(h) for h in hidden))

    def push(self, v: Tensor, at: Linearization) -> Tensor:
        """Jacobian times vector, for each sample."""
        for index, weight in enumerate(at.weights):
            v = self._apply_weight(v if index == 0 else v * at.slopes[index - 1], weight)
        return v

    def jacobian(self, at: Linearization, shape: Shape) -> Tensor:
        """The whole Jacobian of each sample, ``(B, D, D)``."""
        dims, batch, weight = math.prod(shape), at.slopes[0].shape[0], at.weights[0]
        basis = torch.eye(dims, dtype=weight.dtype, device=weight.device).view(dims, 1, *shape)
        slopes = tuple(slope.expand(dims, *slope.shape).flatten(0, 1) for slope in at.slopes)
        columns = self.push(basis.expand(dims, batch, *shape).flatten(0, 1), Linearization(at.weights, slopes))
        return columns.view(dims, batch, dims).permute(1, 2, 0)

    def _walk(self, x: Tensor, given: Tensors, weights: Tensors) -> tuple[Tensor, list[Tensor]]:
        """The output, and the values before each activation."""
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
    """Derivative of the activation."""
    s = torch.sigmoid(h)
    return s * (1 + h * (1 - s)) / _SLOPE


def norm_bound(matrix: Tensor) -> Tensor:
    r"""An upper bound of the largest singular value, within a factor of :math:`\text{rank}^{1/128}`.

    Frobenius norms of :math:`(W W^\top)^{2^k}`, rescaled on the way so that nothing overflows (Gram iteration).
    """
    m = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    tiny = torch.finfo(m.dtype).tiny
    log_scale = m.new_zeros(())
    for _ in range(_SQUARINGS):
        norm = torch.linalg.vector_norm(m).clamp_min(tiny)
        m = m / norm
        m = m @ m.t()
        log_scale = 2 * (log_scale + norm.log())
    log_norm = torch.linalg.vector_norm(m).clamp_min(tiny).log()
    return torch.exp((log_norm + log_scale) / 2**_SQUARINGS)
