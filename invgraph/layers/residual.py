"""i-ResNet: add a contracting network to its input."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from invgraph.arguments import as_number, require_choice, require_count
from invgraph.core.invertible import Result
from invgraph.core.stochastic import Stochastic, signs
from invgraph.core.subnet import check_conditions
from invgraph.errors import GraphError
from invgraph.nets.contraction import Contraction, Linearization
from invgraph.numerics.linalg import own_precision
from invgraph.numerics.seeding import generator
from invgraph.shapes import Tensors

_NEWTON_STEPS = 2


class Residual(Stochastic):
    r"""Add a network that contracts to its input (i-ResNet).

    .. math:: y = x + g(x, c), \qquad \text{Lip}(g) < 1

    The inverse is the fixed point of :math:`x = y - g(x, c)`, by ``iterations`` steps from y and a last Newton step,
    through which the gradient flows as the implicit function theorem wants: nothing of the iteration is stored. Its
    error is below :math:`L^{2 \cdot \text{iterations}}` of the distance it went, for the Lipschitz constant L (in exact
    mode the Newton steps square it once more): 7e-10 at the very worst, at the defaults; networks rarely come near
    their bound. Autocast does not reach inside.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same spatial size.

    Log-det:
        :math:`\log |\det (1 + J_g)|`, nats per sample: ``"exact"`` from the whole Jacobian, for D numbers D passes
        and a D x D determinant; ``"estimate"`` from its power series by Russian roulette: a random number without
        bias, equal in both directions, until :func:`~invgraph.reseed` draws other random vectors and another length
        of the series. Call that once a training step.

    Arguments:
        in_shapes: shape of the input.
        cond_shapes: shapes of the conditions.
        hidden: width of the network.
        layers: how many hidden layers.
        kernel: size of the convolutions, odd; vectors have none.
        lipschitz: bound of the network's Lipschitz constant, below 1.
        log_det: ``"exact"`` or ``"estimate"``.
        terms: how many terms of the series are always taken; each further one with probability 1/2.
        iterations: steps of the inverse.
        seed: of the estimate.

    Raises:
        GraphError: a number out of its range, or conditions that do not fit.

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

    conditional = True

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
    ) -> None:
        super().__init__(in_shapes, cond_shapes, seed=seed)
        sizes = {"hidden": hidden, "layers": layers, "kernel": kernel, "terms": terms, "iterations": iterations}
        hidden, layers, kernel, terms, iterations = (require_count("Residual", *size) for size in sizes.items())
        if kernel % 2 == 0:
            raise GraphError("Residual", f"kernel={kernel}", "kernel must be odd, to keep the spatial size")
        lipschitz = as_number("Residual", "lipschitz", lipschitz)
        if not 0 < lipschitz < 1:
            raise GraphError("Residual", f"lipschitz={lipschitz}", "lipschitz must lie in (0, 1): else no inverse")
        self.exact = require_choice("Residual", "log_det", log_det, ("exact", "estimate")) == "exact"
        shape = self.in_shapes[0]
        check_conditions("Residual", shape, self.cond_shapes)
        self.lipschitz = float(lipschitz)
        self.terms, self.iterations = terms, iterations
        self.net = Contraction(shape, self.cond_shapes, hidden, layers, kernel, lipschitz)
        self.length = _length(seed, terms)

    def reseed(self, seed: int) -> None:
        super().reseed(seed)
        self.length = _length(seed, self.terms)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        (x,) = xs
        with own_precision(x):
            g, at = self.net.linearize(x, self.net.precompute(cs), self.net.bounded())
            return (x + g,), self._log_det(x, at)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        with own_precision(ys[0]):  # half precision's rounding would stop the iteration early
            return self._solve(ys[0], cs)

    def _solve(self, y: Tensor, cs: Tensors) -> Result:
        given, weights = self.net.precompute(cs), self.net.bounded()
        with torch.no_grad():
            x = y
            for _ in range(self.iterations):
                x = y - self.net.run(x, given, weights)
            for _ in range(_NEWTON_STEPS - 1 if self.exact else 0):
                x = self._newton(x.detach(), y, given, weights)
        x = self._newton(x.detach(), y, given, weights)
        _, at = self.net.linearize(x, given, weights)
        return (x,), -self._log_det(x, at)

    def _newton(self, x: Tensor, y: Tensor, given: Tensors, weights: Tensors) -> Tensor:
        """One step from x, a constant: its derivatives are those of the implicit function."""
        g, at = self.net.linearize(x, given, weights)
        miss = x + g - y
        fixed = Linearization(*(tuple(t.detach() for t in part) for part in at))
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
        """Of the whole layer, ``(B, D, D)``, in a dtype that has determinants."""
        jacobian = self.net.jacobian(at, self.in_shapes[0])
        jacobian = jacobian.to(torch.promote_types(x.dtype, torch.float32))
        return jacobian + torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=x.device)

    def _log_det(self, x: Tensor, at: Linearization) -> Tensor:
        if self.exact:
            log_det: Tensor = torch.linalg.slogdet(self._jacobian(x, at)).logabsdet.to(x.dtype)
            return log_det
        probe = signs(self.seed, x)
        v, total = probe, x.new_zeros(x.shape[0])
        for k in range(1, self.length + 1):
            v = self.net.push(v, at)
            chance = 0.5 ** max(k - self.terms, 0)  # that the series came this far
            total = total + (v * probe).flatten(1).sum(1) * ((-1) ** (k + 1) / (k * chance))
        return total

    def extra_repr(self) -> str:
        log_det = "exact" if self.exact else f"estimate, terms={self.terms}"
        return f"{super().extra_repr()}, lipschitz={self.lipschitz}, log_det={log_det}"


def _length(seed: int, terms: int) -> int:
    """How many terms to take: each one beyond ``terms`` with probability 1/2."""
    u = torch.rand((), generator=generator(seed), dtype=torch.float64, device="cpu").item()
    return terms + math.floor(-math.log2(1 - u))
