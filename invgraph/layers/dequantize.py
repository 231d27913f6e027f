"""Dequantization: noise that fills the gaps between integers, so that a density can be fitted to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invgraph.arguments import require_count, require_flag
from invgraph.core.call import call_checked
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.resized import resized
from invgraph.core.stochastic import Stochastic, is_first_pass, normal, uniform
from invgraph.errors import ArgumentError, GraphError, InputTypeError
from invgraph.numerics.domain import require_integers
from invgraph.numerics.interval import Interval, Loose
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import has_data, replace_children


class Dequantize(Stochastic):
    r"""Add noise to integers and scale them to (0, 1); the inverse rounds down.

    .. math:: y = (x + u) / \text{levels}, \qquad u \in (0, 1)

    The layer is stochastic, and a flow that starts with it computes a lower bound of the log-probability of the
    integers x instead of its exact value:

    .. math:: \log P(x | c) \ge E_u \left[ \log p(y | c) - D \log \text{levels} - \log q(u | x, c) \right]

    The flow returns the bracket for a single u. The inverse restores the integers exactly. Forward after the inverse
    draws new noise: y stays in its interval, but changes. In ``train()`` mode each call draws fresh noise, from torch's
    global generator; with noise that never changes, a flow would learn the noise and report better bounds than are
    possible. In ``eval()`` mode the noise is a function of the seed and of the position in the batch, and stays the
    same until :func:`~invgraph.reseed` is called.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; x holds the integers ``0 .. levels - 1`` in a floating-point dtype.

    Log-det:
        :math:`-D \log \text{levels} - \log q(u | x, c)`, nats per sample, where q is 1 for uniform noise; the negative
        of it for the inverse, with the u that the inverse finds.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions, which the noise may depend on.
        levels: Number of integer values of an element, at least 2. Default: 256.
        noise: Invertible layer or graph for variational dequantization; None for uniform noise. It maps standard
            normal noise to the logits of u, conditioned on x and then on the conditions, e.g.
            ``Elementwise(shape, (shape,), transform=Affine(), subnet=nets.ConvNet(32))``.
        seed: Seed of the noise in evaluation mode. Default: 0.
        fixed_noise: True to use the noise of the seed in training mode as well. Default: False.
        check_domain: If True (default), calls in ``train()`` mode raise :class:`~invgraph.errors.NumericsError` for
            values other than the integers, such as pixels in [0, 1], from which a flow would learn the noise. Compiled
            calls, and those under ``vmap``, can't look at the data. :func:`~invgraph.reversible` rebuilds integers
            only, and always raises the error.

    Raises:
        GraphError: If there are fewer than 2 levels, conditions without ``noise``, or a ``noise`` of other shapes.
        ArgumentError: If an argument has the wrong type.
        InputTypeError: In a call, if the dtype is too coarse to hold noise beside the integers.

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
    fixed_size_reason = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        levels: int = 256,
        noise: Invertible | None = None,
        seed: int = 0,
        fixed_noise: bool = False,
        check_domain: bool = True,
    ) -> None:
        super().__init__(in_shapes, cond_shapes, seed=seed, fixed_noise=fixed_noise)
        self.check_domain = require_flag("Dequantize", "check_domain", check_domain)
        self.levels = levels = require_count("Dequantize", "levels", levels, least=2)
        self.noise = None if noise is None else self._require_noise(noise)
        if noise is None and self.cond_shapes:
            given = f"{len(self.cond_shapes)} conditions"
            raise GraphError("Dequantize", given, "uniform noise takes no conditions: give noise=, or no conditions")

    @property
    def constant(self) -> float:
        """Log-determinant of the division by the number of levels, with the sign of the inverse."""
        return math.prod(self.in_shapes[0]) * math.log(self.levels)

    def _resize(self, before: tuple[Shape, ...]) -> None:
        if self.noise is not None:
            noise = resized(self.noise, self.in_shapes, (*self.in_shapes, *self.cond_shapes))
            replace_children(self, {"noise": self._require_noise(noise)})

    def _require_noise(self, noise: object) -> Invertible:
        if not isinstance(noise, Invertible):
            advice = "noise must be an invertible layer or graph, already built"
            raise ArgumentError("Dequantize", f"noise={type(noise).__name__}", advice)
        expected = (self.in_shapes, self.in_shapes, (*self.in_shapes, *self.cond_shapes))
        given = (noise.in_shapes, noise.out_shapes, noise.cond_shapes)
        if given != expected:
            given_shapes, expected_shapes = (f"{xs} -> {ys} under {cs}" for xs, ys, cs in (given, expected))
            raise GraphError("Dequantize", f"noise {given_shapes}", f"expected {expected_shapes}")
        return noise

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        (x,) = xs
        if has_data(x) and ((self.check_domain and self.training) or is_first_pass()):
            require_integers(self.label, x, self.levels)
        bits = self._bits(x)
        if self.noise is None:
            u, log_q = uniform(self.noise_seed(x), x, bits), x.new_zeros(x.shape[0])
        else:
            eps = normal(self.noise_seed(x), x)
            (logit,), log_det = call_checked(self.noise, (eps,), (x, *cs), inverse=False)
            u = torch.sigmoid(logit)
            log_q = _log_normal(eps) - log_det - _log_sigmoid_derivative(logit)
            edge = 2.0 ** -(bits + 1)
            u = u.clamp(edge, 1 - edge)  # so that x + u never rounds to the next integer
        return ((x + u) / self.levels,), -self.constant - log_q

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        if is_first_pass():
            advice = "it rounds: nothing can rebuild what it was given; call the plain graph"
            raise GraphError(self.label, "the inverse of a dequantization in a reversible graph", advice)
        self._bits(ys[0])
        scaled = ys[0] * self.levels
        x = scaled.floor().clamp(0, self.levels - 1)
        log_q = x.new_zeros(x.shape[0])
        if self.noise is not None:
            edge = 2.0 ** -(self._bits(x) + 1)
            logit = torch.logit((scaled - x).clamp(edge, 1 - edge))  # as in the forward direction
            (eps,), log_det = call_checked(self.noise, (logit,), (x, *cs), inverse=True)
            log_q = _log_normal(eps) + log_det - _log_sigmoid_derivative(logit)
        return (x,), self.constant + log_q

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Initialize the noise layer."""
        if self.noise is not None:
            self.noise._initialize((normal(self.seed, xs[0]),), (xs[0], *cs))

    def _bits(self, x: Tensor) -> int:
        """Return the number of random bits such that an integer below ``levels`` plus the noise is exact."""
        mantissa = round(-math.log2(torch.finfo(x.dtype).eps))
        bits = mantissa - math.ceil(math.log2(self.levels)) - 1
        if bits < 1:
            given = f"levels={self.levels} in {x.dtype}, whose fractions have {mantissa} bits"
            raise InputTypeError(self.label, given, "no bit is left for noise: use a finer dtype, or fewer levels")
        return bits

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return (Interval(0.0, self.levels - 1.0) if inverse else Loose(0.0, 1.0),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}"


def _log_normal(eps: Tensor) -> Tensor:
    """Return the log-density of a standard normal, per sample."""
    return -0.5 * (eps.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def _log_sigmoid_derivative(logit: Tensor) -> Tensor:
    """Return the log-derivative of the sigmoid, summed per sample."""
    log_derivative = torch.nn.functional.logsigmoid(logit) + torch.nn.functional.logsigmoid(-logit)
    return log_derivative.flatten(1).sum(1)
