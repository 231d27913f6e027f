"""The transform of Flow++: the distribution function of a mixture of logistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from invgraph.arguments import require_count, require_positive
from invgraph.numerics.root_finding import solve_increasing
from invgraph.numerics.soft_clamp import soft_clamp
from invgraph.transforms.transform import Transform, per_sample


@dataclass(frozen=True)
class MixtureCDF(Transform):
    r"""Send each number through the distribution function of a mixture of logistics, a logit, a scale and a shift.

    .. math:: y = e^a \operatorname{logit}\left(\sum_k \pi_k \, \sigma\left(\frac{x - \mu_k}{s_k}\right)\right) + b

    The inverse is found by cutting exact bounds, and Newton's steps to the rounding of the dtype; its
    gradient comes from the implicit function theorem.

    Log-det:
        The sum of the log slopes, nats per sample, computed from logarithms of densities: finite far outside.

    Arguments:
        components: number of logistics K; a transform takes 3 K + 2 parameters per element.
        clamp: bound of the absolute value of a and of each :math:`\log s_k`.

    For parameters of zero the means lie evenly in [-1, 1], so that the components can part (equal ones never would):
    y is then within log cosh 1 = 0.44 of x.

    Raises:
        GraphError: no components, or a clamp that is not positive.

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
    """The logit of the distribution function; each field ``(B, components, ...)``."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log slope at x, of the shape of the data, or with more axes before it."""
        dim = x.ndim - self.means.ndim + 2  # where the components stand
        u = (x.unsqueeze(dim) - self.means) * torch.exp(-self.log_scales)
        log_below, log_above = logsigmoid(u), logsigmoid(-u)
        below, above = self.log_weights + log_below, self.log_weights + log_above
        log_cdf = torch.logsumexp(below, dim=dim)
        log_rest = torch.logsumexp(above, dim=dim)
        # density / (cdf * rest), where the small one of the two divides first: far out both logarithms of a quotient
        # are huge, and their difference is lost.
        shares = torch.where(
            (log_cdf > log_rest).unsqueeze(dim),
            torch.log_softmax(above, dim=dim) + log_below - log_cdf.unsqueeze(dim),
            torch.log_softmax(below, dim=dim) + log_above - log_rest.unsqueeze(dim),
        )
        return log_cdf - log_rest, torch.logsumexp(shares - self.log_scales, dim=dim)

    def bracket(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on where the value is taken: where the lowest and the highest component alone would take it."""
        alone = self.means + value.unsqueeze(1) * torch.exp(self.log_scales)
        return alone.amin(1), alone.amax(1)
