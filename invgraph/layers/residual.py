"""Residual flow (i-ResNet): a contractive network is added to its input."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from invgraph.arguments import as_number, require_choice, require_count
from invgraph.core.invertible import Result
from invgraph.core.stochastic import Stochastic, signs, uniform
from invgraph.core.subnet import check_conditions, check_subnet
from invgraph.errors import GraphError
from invgraph.nets.contraction import Contraction, Linearization
from invgraph.numerics.linalg import own_precision
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import has_data

_NEWTON_STEPS = 2
_MOST_EXTRA = 8


class Residual(Stochastic):
    r"""Add the output of a contractive network to its input (i-ResNet).

    .. math:: y = x + g(x, c), \qquad \text{Lip}(g) < 1

    The inverse is the fixed point of :math:`x = y - g(x, c)`, found by ``iterations`` steps from y and a final Newton
    step. Only Newton steps are differentiated, which gives the gradient of the implicit function theorem without
    storing any iterate; there are two of them where gradients are recorded, so that second derivatives are right too.
    For a Lipschitz constant L, the error is at most :math:`L^{2 \cdot \text{iterations}}` times the distance between y
    and x (the square of that factor in exact mode, which takes two Newton steps). With the default number of iterations
    the factor is 7e-10 at worst (without the square), and networks rarely reach their bound. Autocast is disabled
    inside the layer.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same spatial size.

    Log-det:
        :math:`\log |\det (1 + J_g)|`, nats per sample. ``"exact"`` computes the whole Jacobian, which takes D passes
        and a D x D determinant for D elements. ``"estimate"`` truncates the power series at random (Russian roulette).
        The estimate is unbiased. In ``train()`` mode each call draws a new random vector and a new length of the series
        from torch's global generator; in ``eval()`` mode both directions use the same until :func:`~invgraph.reseed`
        draws others. Compiled or under ``vmap``, where the length is not known beforehand, the series ends at the
        latest after ``terms + 8`` terms, and all of these are evaluated.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        hidden: Width of the network. Default: 64.
        layers: Number of hidden layers. Default: 2.
        kernel: Kernel size of the convolutions, odd; not used for vectors. Default: 3.
        lipschitz: Bound of the network's Lipschitz constant, below 1. Default: 0.9.
        log_det: ``"exact"`` (default) or ``"estimate"``.
        terms: Number of terms of the series that are always evaluated; each further term is added with probability
            1/2. Default: 5.
        iterations: Number of fixed-point iterations of the inverse. Default: 100.
        seed: Seed of the estimate in evaluation mode. Default: 0.
        fixed_noise: True to use the numbers of the seed in training mode as well. Default: False.

    Raises:
        GraphError: If an argument is out of range, or the conditions do not fit.
        ArgumentError: If an argument has the wrong type.

    References:
        J. Behrmann, W. Grathwohl, R. T. Q. Chen, D. Duvenaud, J.-H. Jacobsen, "Invertible Residual Networks", 2018,
        https://arxiv.org/abs/1811.00995; R. T. Q. Chen, J. Behrmann, D. Duvenaud, J.-H. Jacobsen, "Residual Flows for
        Invertible Generative Modeling", 2019, https://arxiv.org/abs/1906.02735; B. Delattre et al., "Efficient Bound
        of Lipschitz Constant for Convolutional Layers by Gram Iteration", 2023, https://arxiv.org/abs/2305.16173

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Residual((4,), ((3,),), hidden=16)
        >>> (y,), log_det = layer((torch.ones(2, 4),), (torch.zeros(2, 3),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 4]), torch.Size([2]))
    """

    range_kind = "any"
    conditional = True
    fixed_size_reason = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        hidden: int = 64,
        layers: int = 2,
        kernel: int = 3,
        lipschitz: float = 0.9,
        log_det: Literal["exact", "estimate"] = "exact",
        terms: int = 5,
        iterations: int = 100,
        seed: int = 0,
        fixed_noise: bool = False,
    ) -> None:
        super().__init__(in_shapes, cond_shapes, seed=seed, fixed_noise=fixed_noise)
        sizes = {"hidden": hidden, "layers": layers, "kernel": kernel, "terms": terms, "iterations": iterations}
        hidden, layers, kernel, terms, iterations = (require_count("Residual", *size) for size in sizes.items())
        if kernel % 2 == 0:
            raise GraphError("Residual", f"kernel={kernel}", "kernel must be odd, to keep the spatial size")
        lipschitz = as_number("Residual", "lipschitz", lipschitz)
        if not 0 < lipschitz < 1:
            advice = "lipschitz must lie in (0, 1): otherwise the layer may have no inverse"
            raise GraphError("Residual", f"lipschitz={lipschitz}", advice)
        self.exact = require_choice("Residual", "log_det", log_det, ("exact", "estimate")) == "exact"
        shape = self.in_shapes[0]
        check_conditions("Residual", shape, self.cond_shapes)
        self.lipschitz = float(lipschitz)
        self.terms, self.iterations = terms, iterations
        self.net = Contraction(shape, self.cond_shapes, hidden, layers, kernel, lipschitz)

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        check_subnet(self.label, self.net, self.in_shapes[0], self.cond_shapes, self.in_shapes[0])

    def _draws(self) -> bool:
        return super()._draws() and not self.exact

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        (x,) = xs
        with own_precision(x):
            g, at = self.net.linearize(x, self.net.precompute(cs), self.net.bounded_weights())
            return (x + g,), self._log_det(x, at)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        with own_precision(ys[0]):  # rounding to half precision would stop the iteration early
            return self._solve(ys[0], cs)

    def _solve(self, y: Tensor, cs: Tensors) -> Result:
        given, weights = self.net.precompute(cs), self.net.bounded_weights()
        recorded = torch.is_grad_enabled()
        with torch.no_grad():
            x = y
            for _ in range(self.iterations):
                x = y - self.net.run(x, given, weights)
            for _ in range(_NEWTON_STEPS - 1 if self.exact and not recorded else 0):
                x = self._newton_step(x, y, given, weights)
        x = self._newton_step(x.detach(), y, given, weights, constant=True)
        if recorded:  # a second step, which also differentiates the Jacobian, makes second derivatives right
            x = self._newton_step(x, y, given, weights)
        _, at = self.net.linearize(x, given, weights)
        return (x,), -self._log_det(x, at)

    def _newton_step(self, x: Tensor, y: Tensor, given: Tensors, weights: Tensors, *, constant: bool = False) -> Tensor:
        """Return the result of a Newton step, with gradients.

        From a detached root, its first derivatives are those of the implicit function, even if the Jacobian is taken
        for a ``constant``. From there, another step has the right second derivatives.
        """
        g, at = self.net.linearize(x, given, weights)
        miss = x + g - y
        fixed = Linearization(*(tuple(t.detach() for t in part) for part in at)) if constant else at
        if self.exact:
            jacobian = self._jacobian(x, fixed)
            back = torch.linalg.solve(jacobian, miss.flatten(1)[..., None].to(jacobian.dtype))
            newton: Tensor = x - back.view_as(x).to(x.dtype)
            return newton
        step = miss
        for _ in range(self.iterations):
            step = miss - self.net.push(step, fixed)
        return x - step

    def _jacobian(self, x: Tensor, at: Linearization) -> Tensor:
        """Return the Jacobian of the layer, ``(B, D, D)``, in a dtype for which torch has determinants."""
        jacobian = self.net.jacobian(at, self.in_shapes[0])
        jacobian = jacobian.to(torch.promote_types(x.dtype, torch.float32))
        return jacobian + torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=x.device)

    def _log_det(self, x: Tensor, at: Linearization) -> Tensor:
        if self.exact:
            log_det: Tensor = torch.linalg.slogdet(self._jacobian(x, at)).logabsdet.to(x.dtype)
            return log_det
        seed = self.noise_seed(x)
        probe = signs(seed, x)
        length = self.terms + _extra_terms(seed)
        # The number of terms can't depend on a tensor that has no data: there, those beyond the length get weight 0.
        known = has_data(seed)
        v, total = probe, x.new_zeros(x.shape[0])
        for k in range(1, (int(length) if known else self.terms + _MOST_EXTRA) + 1):
            v = self.net.push(v, at)
            chance = 0.5 ** max(k - self.terms, 0)  # probability that the series has at least k terms
            term = (v * probe).flatten(1).sum(1) * ((-1) ** (k + 1) / (k * chance))
            total = total + (term if known or k <= self.terms else torch.where(k <= length, term, 0.0))
        return total

    def extra_repr(self) -> str:
        log_det = "exact" if self.exact else f"estimate, terms={self.terms}"
        return f"{super().extra_repr()}, lipschitz={self.lipschitz}, log_det={log_det}"


def _extra_terms(seed: Tensor) -> Tensor:
    """Draw the number of terms after those that are always evaluated: each has probability 1/2."""
    u = uniform(seed + 1, torch.zeros(1, dtype=torch.float64, device=seed.device), 50)
    return (-torch.log2(u)).floor().squeeze(0)
