"""The affine transform of RealNVP, GLOW and the paper's coupling blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invgraph.fused.affine import AffineKernel
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.soft_clamp import Activation, require_clamp, soft_clamp
from invgraph.transforms.transform import Transform


@dataclass(frozen=True)
class Affine(Transform):
    r"""Scale and shift each element, with a softly clamped log scale (paper, Eqs. 1, 2 and 7).

    .. math:: y = x \exp(s_\text{clamp}) + t, \qquad s_\text{clamp} = \frac{2 \alpha}{\pi} \arctan\frac{s}{\alpha}

    Log-det:
        The sum of :math:`s_\text{clamp}` over the elements, in nats per sample.

    Arguments:
        clamp: Bound alpha of the log scale. Default: 1.9.
        activation: Soft clamp: ``"atan"``, as in the paper (default); ``"tanh"``: alpha tanh(s / alpha); or
            ``"sigmoid"``: alpha (2 sigmoid(s / alpha) - 1).

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803; L. Ardizzone et al., "Guided Image Generation with Conditional Invertible
        Neural Networks", 2019, https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> y, log_det = ig.Affine(clamp=1.0).forward(torch.ones(1, 2), torch.zeros(1, 2, 2))
        >>> y, log_det
        (tensor([[1., 1.]]), tensor([0.]))
    """

    clamp: float = 1.9
    activation: Activation = "atan"

    def __post_init__(self) -> None:
        self._set(clamp=require_clamp("Affine", self.clamp, self.activation))

    @property
    def params_per_element(self) -> int:
        return 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel(inverse=False).run(x, params)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel(inverse=True).run(y, params)

    def kernel(self, inverse: bool) -> AffineKernel:
        """Return one direction, with its gradient derived by hand."""
        return AffineKernel(self._unscale if inverse else self._scale, self.clamp, self.activation, inverse)

    def _scale(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        return torch.addcmul(t, x, torch.exp(s)), per_sample(s)

    def _unscale(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = params.unbind(1)
        s = soft_clamp(raw, self.clamp, self.activation)
        return (y - t) / torch.exp(s), -per_sample(s)
