"""The softplus, which maps all real numbers to positive ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from invgraph.arguments import require_flag
from invgraph.numerics.domain import require_domain, zero_density
from invgraph.numerics.interval import REALS, Interval, Known
from invgraph.numerics.reductions import per_sample
from invgraph.transforms.transform import Transform


@dataclass(frozen=True)
class Softplus(Transform):
    r"""Map all real numbers to positive ones, close to the identity for large values.

    .. math:: y = \log(1 + e^x)

    It has no parameters: use it in :class:`~invgraph.Elementwise` without a subnet.

    Log-det:
        The sum of :math:`\log \sigma(x)`, in nats per sample.

    Arguments:
        check_domain: If True, the inverse raises :class:`~invgraph.errors.NumericsError` for values that are not
            positive. This is for debugging: it depends on the data, so it can't be compiled or vectorized by vmap. If
            False (default), the log-determinant of the inverse is minus infinity for negative values.

    References:
        C. Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option Pricing", 2000,
        https://papers.nips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Elementwise((1,), transform=ig.Softplus())((torch.zeros(1, 1),))
        >>> y, log_det
        (tensor([[0.6931]]), tensor([-0.6931]))
    """

    check_domain: bool = False

    def __post_init__(self) -> None:
        self._set(check_domain=require_flag("Softplus", "check_domain", self.check_domain))

    @property
    def domain(self) -> Known:
        return REALS

    @property
    def range(self) -> Known:
        return Interval(0.0, math.inf)

    @property
    def params_per_element(self) -> int:
        return 0

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        # torch's softplus is the identity above 20, with an error of 2e-9 in float64.
        return -logsigmoid(-x), per_sample(logsigmoid(x))

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        if self.check_domain:
            require_domain("inverse of softplus", y, 0.0, math.inf)
        outside = y < 0  # 0 is what the softplus of a very negative number rounds to
        y = y.clamp(min=torch.finfo(y.dtype).tiny)
        log_slope = torch.log(-torch.expm1(-y))
        return y + log_slope, zero_density(per_sample(-log_slope), outside)
