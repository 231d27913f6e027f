"""The sigmoid and its inverse, the logit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from invgraph.arguments import as_number, require_flag
from invgraph.errors import GraphError
from invgraph.numerics.domain import into_open_interval, require_domain, zero_density
from invgraph.numerics.interval import REALS, Interval, Known
from invgraph.numerics.reductions import per_sample
from invgraph.transforms.transform import Transform


@dataclass(frozen=True)
class Sigmoid(Transform):
    r"""Map all real numbers into (0, 1).

    .. math:: y = \frac{\sigma(x) - \alpha}{1 - 2 \alpha}, \qquad \sigma(x) = \frac{1}{1 + e^{-x}}

    It has no parameters: use it in :class:`~invgraph.Elementwise` without a subnet.

    Log-det:
        The sum of :math:`\log \sigma(x) + \log \sigma(-x) - \log(1 - 2 \alpha)`, in nats per sample.

    Arguments:
        alpha: Widening of the interval to (-alpha, 1 - alpha) / (1 - 2 alpha), which gives all of [0, 1] finite logits.
            Default: 0.
        check_domain: If True, the inverse raises :class:`~invgraph.errors.NumericsError` for values outside the
            interval or at its ends. This is for debugging: it depends on the data, so it can't be compiled or
            vectorized by vmap. If False (default), the log-determinant of the inverse is minus infinity for values
            outside.

    Raises:
        GraphError: If alpha is not in [0, 1/2).

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Elementwise((1,), transform=ig.Sigmoid())((torch.zeros(1, 1),))
        >>> y, log_det
        (tensor([[0.5000]]), tensor([-1.3863]))
    """

    alpha: float = 0.0
    check_domain: bool = False

    def __post_init__(self) -> None:
        alpha = _require_alpha("Sigmoid", self.alpha)
        self._set(alpha=alpha, check_domain=require_flag("Sigmoid", "check_domain", self.check_domain))

    @property
    def domain(self) -> Known:
        return REALS

    @property
    def range(self) -> Known:
        return Interval(*_interval(self.alpha))

    @property
    def params_per_element(self) -> int:
        return 0

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return _sigmoid(x, self.alpha)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        if self.check_domain:
            require_domain("logit", y, *_interval(self.alpha))
        return _logit(y, self.alpha)


@dataclass(frozen=True)
class Logit(Transform):
    r"""Map values in (0, 1), such as pixel intensities, to all real numbers.

    .. math:: y = \log \frac{p}{1 - p}, \qquad p = \alpha + (1 - 2 \alpha) x

    It has no parameters: use it in :class:`~invgraph.Elementwise` without a subnet.

    Log-det:
        The sum of :math:`\log(1 - 2 \alpha) - \log p - \log(1 - p)`, in nats per sample.

    Arguments:
        alpha: Margin that keeps p away from 0 and 1 for x in [0, 1]; 0.05 for the images of RealNVP. Default: 0, for
            which x = 0 and x = 1 count as the numbers next to them, because samples of a flow are rounded to them.
        check_domain: If True, forward raises :class:`~invgraph.errors.NumericsError` for values outside the domain or
            at its ends. This is for debugging: it depends on the data, so it can't be compiled or vectorized by vmap.
            If False (default), values outside have a log-determinant, and thus a log-density, of minus infinity.

    Raises:
        GraphError: If alpha is not in [0, 1/2).

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Elementwise((1,), transform=ig.Logit())((torch.full((1, 1), 0.25),))
        >>> y, log_det
        (tensor([[-1.0986]]), tensor([1.6740]))
    """

    alpha: float = 0.0
    check_domain: bool = False

    def __post_init__(self) -> None:
        alpha = _require_alpha("Logit", self.alpha)
        self._set(alpha=alpha, check_domain=require_flag("Logit", "check_domain", self.check_domain))

    @property
    def domain(self) -> Known:
        return Interval(*_interval(self.alpha))

    @property
    def range(self) -> Known:
        return REALS

    @property
    def params_per_element(self) -> int:
        return 0

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        if self.check_domain:
            require_domain("logit", x, *_interval(self.alpha))
        return _logit(x, self.alpha)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return _sigmoid(y, self.alpha)


def _require_alpha(where: str, alpha: object) -> float:
    number = as_number(where, "alpha", alpha)
    if not 0 <= number < 0.5:
        raise GraphError(where, f"alpha={number}", "alpha must lie in [0, 1/2): it is cut off at both ends of (0, 1)")
    return number


def _interval(alpha: float) -> tuple[float, float]:
    return -alpha / (1 - 2 * alpha), (1 - alpha) / (1 - 2 * alpha)


def _sigmoid(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    width = 1 - 2 * alpha
    return (torch.sigmoid(x) - alpha) / width, per_sample(logsigmoid(x) + logsigmoid(-x) - math.log(width))


def _logit(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the logit and its log-determinant.

    The ends of the interval are values that the sigmoid rounds to: they count as the last numbers before them, with
    finite results. Values outside, which have no density, count so too, with a log-determinant of minus infinity; only
    then the sum with the log-density of a base is minus infinity, and no NaN.
    """
    width = 1 - 2 * alpha
    p = alpha + width * y
    rounding = 4 * torch.finfo(p.dtype).eps if alpha else 0.0
    outside = (p < -rounding) | (p > 1 + rounding)
    p = into_open_interval(p)
    low, high = torch.log(p), torch.log1p(-p)
    return low - high, zero_density(per_sample(math.log(width) - low - high), outside)
