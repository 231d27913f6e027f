"""The transform of Flow++: the CDF of a mixture of logistic distributions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from invgraph.arguments import require_count, require_positive
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.root_finding import solve_increasing
from invgraph.numerics.soft_clamp import soft_clamp
from invgraph.transforms.transform import Unbounded


@dataclass(frozen=True)
class MixtureCDF(Unbounded):
    r"""Apply the CDF of a mixture of logistic distributions, then a logit, a scale and a shift.

    .. math:: y = e^a \operatorname{logit}\left(\sum_k \pi_k \, \sigma\left(\frac{x - \mu_k}{s_k}\right)\right) + b

    The inverse is found by bracketing and Newton's method, to the precision of the dtype; its gradient comes from the
    implicit function theorem. For parameters of zero the means are evenly spaced in [-1, 1], because components that
    start equal would stay equal; y is then within log cosh 1 = 0.44 of x.

    Log-det:
        The sum of the log slopes, in nats per sample; computed from log densities, so it stays finite in the tails.

    Arguments:
        components: Number K of logistic components; the transform takes 3 K + 2 parameters per element. Default: 8.
        clamp: Bound of the absolute value of a and of each :math:`\log s_k`. Default: 3.

    Raises:
        GraphError: If there are no components, or the clamp is not positive.

    References:
        J. Ho et al., "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture
        Design", 2019, https://arxiv.org/abs/1902.00275

    Example:
        >>> import torch, invgraph as ig
        >>> mixture = ig.MixtureCDF(components=4)
        >>> y, log_det = mixture.forward(torch.zeros(1, 1), torch.zeros(1, mixture.params_per_element, 1))
        >>> y.abs() < 1e-6, log_det
        (tensor([[True]]), tensor([-0.1283]))
    """

    components: int = 8
    clamp: float = 3.0

    def __post_init__(self) -> None:
        where = "MixtureCDF"
        components = require_count(where, "components", self.components)
        self._set(components=components, clamp=require_positive(where, "clamp", self.clamp))

    @property
    def params_per_element(self) -> int:
        return 3 * self.components + 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture, a, b = self._parts(params)
        finite = x.isfinite()
        value, log_slope = mixture(torch.where(finite, x, 0.0))
        y = torch.where(finite, torch.addcmul(b, value, torch.exp(a)), x)
        return y, per_sample(log_slope + a)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        mixture, a, b = self._parts(params)
        finite = y.isfinite()
        target = (torch.where(finite, y, 0.0) - b) * torch.exp(-a)
        x = solve_increasing(mixture, target, *mixture.bracket(target))
        return torch.where(finite, x, y), -per_sample(mixture(x)[1] + a)

    def _parts(self, params: Tensor) -> tuple[_Mixture, Tensor, Tensor]:
        k = self.components
        offsets = torch.linspace(-1, 1, k, dtype=params.dtype, device=params.device) if k > 1 else params.new_zeros(1)
        means = params[:, k : 2 * k] + offsets.view(k, *(1 for _ in params.shape[2:]))
        log_scales = soft_clamp(params[:, 2 * k : 3 * k], self.clamp, "atan")
        mixture = _Mixture(torch.log_softmax(params[:, :k], dim=1), means, log_scales)
        return mixture, soft_clamp(params[:, -2], self.clamp, "atan"), params[:, -1]


@dataclass  # not frozen: torch 2.8 can't compile how a frozen one sets its fields
class _Mixture:
    """Logit of the CDF; each field has shape ``(B, components, ...)``."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and log slope at x, which has the shape of the data or further leading axes."""
        dim = x.ndim - self.means.ndim + 2  # axis of the components
        u = (x.unsqueeze(dim) - self.means) * torch.exp(-self.log_scales)
        log_below, log_above = logsigmoid(u), logsigmoid(-u)
        below, above = self.log_weights + log_below, self.log_weights + log_above
        log_cdf = torch.logsumexp(below, dim=dim)
        log_rest = torch.logsumexp(above, dim=dim)
        # density / (cdf * rest), divided by the smaller factor first: in the tails the logs of both are huge, and
        # a difference taken last would be lost to rounding.
        shares = torch.where(
            (log_cdf > log_rest).unsqueeze(dim),
            torch.log_softmax(above, dim=dim) + log_below - log_cdf.unsqueeze(dim),
            torch.log_softmax(below, dim=dim) + log_above - log_rest.unsqueeze(dim),
        )
        return log_cdf - log_rest, torch.logsumexp(shares - self.log_scales, dim=dim)

    def bracket(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds on the root: the lowest and the highest root of a single component."""
        roots = self.means + value.unsqueeze(1) * torch.exp(self.log_scales)
        return roots.amin(1), roots.amax(1)
