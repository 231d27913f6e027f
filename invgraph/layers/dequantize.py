"""Noise that fills the gaps between integers, so that a density can be fitted to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invgraph.arguments import require_count
from invgraph.core.invertible import Invertible, Result, call_checked
from invgraph.core.stochastic import Stochastic, normal, uniform
from invgraph.errors import ArgumentError, GraphError
from invgraph.shapes import Tensors


class Dequantize(Stochastic):
    r"""Add noise to integers and scale them to (0, 1); the inverse rounds down.

    .. math:: y = (x + u) / \text{levels}, \qquad u \in (0, 1)

    This layer is stochastic, and its log-determinant makes a flow's log-density a lower bound, not an equality: the
    probability of the integers x obeys

    .. math:: \log P(x | c) \ge E_u \left[ \log p(y | c) - D \log \text{levels} - \log q(u | x, c) \right]

    and what a flow that starts with this layer returns is the bracket for one u. The inverse of the forward direction
    is exact; the forward of the inverse falls into the same interval, with the layer's own noise. The noise is a
    function of the seed and of the place in the batch: the same until :func:`~invgraph.reseed` is called, which
    training does once a step.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; x holds integers ``0 .. levels - 1`` as floating-point numbers.

    Log-det:
        :math:`-D \log \text{levels} - \log q(u | x, c)`, nats per sample, where q is 1 for uniform noise; the inverse's
        is the negative, for the u that it finds.

    Arguments:
        in_shapes: shape of the input.
        cond_shapes: shapes of the conditions, which the noise may depend on.
        levels: how many values a number takes, e.g. 256.
        noise: None: uniform noise. Variational: an invertible layer or graph from standard normal numbers to the
            logits of u, conditioned on x and then on the conditions, e.g.
            ``Elementwise(shape, (shape,), transform=Affine(), subnet=nets.ConvNet(32))``.
        seed: of the noise.

    Raises:
        GraphError: fewer than 2 levels, conditions without ``noise``, or a ``noise`` of other shapes.

    References:
        L. Theis, A. van den Oord, M. Bethge, "A note on the evaluation of generative models", 2015,
        https://arxiv.org/abs/1511.01844; J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, "Flow++: Improving
        Flow-Based Generative Models with Variational Dequantization and Architecture Design", 2019,
        https://arxiv.org/abs/1902.00275

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Dequantize((1, 2, 2), levels=256)
        >>> pixels = torch.tensor([[[[0.0, 255.0], [17.0, 128.0]]]])
        >>> (y,), log_det = layer((pixels,))
        >>> bool((y > 0).all() and (y < 1).all()), layer.inverse((y,))[0][0].equal(pixels)
        (True, True)
    """

    conditional = True
    condition_argument = "noise"

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        levels: int = 256,
        noise: Invertible | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(in_shapes, cond_shapes, seed=seed)
        self.levels = levels = require_count("Dequantize", "levels", levels, least=2)
        self.constant = math.prod(self.in_shapes[0]) * math.log(levels)
        self.noise = None if noise is None else self._checked_noise(noise)
        if noise is None and self.cond_shapes:
            given = f"{len(self.cond_shapes)} conditions"
            raise GraphError("Dequantize", given, "uniform noise depends on nothing: give noise=, or no conditions")

    def _checked_noise(self, noise: object) -> Invertible:
        if not isinstance(noise, Invertible):
            advice = "noise must be an invertible layer or graph, already built"
            raise ArgumentError("Dequantize", f"noise={type(noise).__name__}", advice)
        expected = (self.in_shapes, self.in_shapes, (*self.in_shapes, *self.cond_shapes))
        given = (noise.in_shapes, noise.out_shapes, noise.cond_shapes)
        if given != expected:
            told = f"noise {given[0]} -> {given[1]} under {given[2]}"
            raise GraphError("Dequantize", told, f"expected {expected[0]} -> {expected[1]} under {expected[2]}")
        return noise

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        (x,) = xs
        bits = self._bits(x)
        if self.noise is None:
            u, log_q = uniform(self.seed, x, bits), x.new_zeros(x.shape[0])
        else:
            eps = normal(self.seed, x)
            (logit,), log_det = call_checked(self.noise, (eps,), (x, *cs), inverse=False)
            u = torch.sigmoid(logit)
            log_q = _log_normal(eps) - log_det - _log_slope(logit)
            edge = 2.0 ** -(bits + 1)
            u = u.clamp(edge, 1 - edge)  # so that x + u never rounds to the next integer
        return ((x + u) / self.levels,), -self.constant - log_q

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        scaled = ys[0] * self.levels
        x = scaled.floor().clamp(0, self.levels - 1)
        log_q = x.new_zeros(x.shape[0])
        if self.noise is not None:
            logit = torch.logit(scaled - x)
            (eps,), log_det = call_checked(self.noise, (logit,), (x, *cs), inverse=True)
            log_q = _log_normal(eps) + log_det - _log_slope(logit)
        return (x,), self.constant + log_q

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """What the noise has that starts from data."""
        if self.noise is not None:
            self.noise._initialize((normal(self.seed, xs[0]),), (xs[0], *cs))

    def _bits(self, x: Tensor) -> int:
        """Of the noise, so that an integer below ``levels`` and the noise fit into the dtype together."""
        mantissa = round(-math.log2(torch.finfo(x.dtype).eps))
        return max(mantissa - math.ceil(math.log2(self.levels)) - 1, 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}"


def _log_normal(eps: Tensor) -> Tensor:
    """Log-density of standard normal numbers, per sample."""
    return -0.5 * (eps.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def _log_slope(logit: Tensor) -> Tensor:
    """Log-derivative of the sigmoid, per sample."""
    slope = torch.nn.functional.logsigmoid(logit) + torch.nn.functional.logsigmoid(-logit)
    return slope.flatten(1).sum(1)
