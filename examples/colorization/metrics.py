"""Quality and diversity of colorizations (paper, Table 1), by photograph, with bootstrap errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Measured(NamedTuple):
    """Value and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = 2 if abs(self.value) < 10 else 1
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


def rmse_best(samples: Tensor, truth: Tensor) -> Tensor:
    """Return the root-mean-square error of the best of n samples, for each photograph.

    Arguments:
        samples: Samples, (n, B, C, H, W).
        truth: True values, (B, C, H, W).

    Returns:
        Errors, (B,), in the units of the data.
    """
    return (samples - truth).square().flatten(2).mean(2).amin(0).sqrt()


def variance(samples: Tensor) -> Tensor:
    """Return the variance of n samples at each pixel and channel, averaged, for each photograph.

    Arguments:
        samples: Samples, (n, B, C, H, W).

    Returns:
        Variances, (B,), in squared units of the data; 0 for a single sample.
    """
    if len(samples) == 1:
        return samples.new_zeros(samples.shape[1])
    return samples.var(0, correction=1).flatten(1).mean(1)


def frechet(generated: Tensor, real: Tensor) -> float:
    r"""Return the Fréchet distance between normal distributions fitted to two sets of features.

    .. math:: \|\mu_1 - \mu_2\|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

    With :math:`\Sigma = R^T R` from a QR decomposition of the centered features, the trace of the root is the sum of
    the singular values of :math:`R_1 R_2^T`, which needs no matrix root and is exact for singular covariances.

    Arguments:
        generated: Features of generated pictures, (N, D).
        real: Features of real pictures, (M, D).

    References:
        M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017,
        https://arxiv.org/abs/1706.08500
    """
    (mean_1, factor_1), (mean_2, factor_2) = _moments(generated), _moments(real)
    cross = torch.linalg.svdvals(factor_1 @ factor_2.T).sum()
    spread = factor_1.square().sum() + factor_2.square().sum()
    return float((mean_1 - mean_2).square().sum() + spread - 2 * cross)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and the factor R of the covariance R^T R."""
    features = features.double()
    mean = features.mean(0)
    return mean, torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R


def hits(logits: Tensor, labels: Tensor, k: int = 5) -> Tensor:
    """Return 1 where the label is among the k classes with the highest logits, and 0 elsewhere, (B,).

    Arguments:
        logits: Logits, (B, classes).
        labels: Indices of classes, (B,).
        k: Number of guesses. Default: 5.
    """
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(1).double()


def bootstrap(
    count: int, figure: Callable[[Tensor], float], *, rounds: int = 1000, seed: int = 0, value: float | None = None
) -> Measured:
    """Return a figure over photographs, with its standard error under resampling of the photographs.

    Arguments:
        count: Number of photographs.
        figure: Function from an index tensor of photographs to the figure.
        rounds: Number of bootstrap samples. Default: 1000.
        seed: Seed of the resampling. Default: 0.
        value: Figure over all photographs. Default: computed.

    References:
        B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979, https://doi.org/10.1214/aos/1176344552
    """
    rng = np.random.default_rng(seed)
    drawn = [figure(torch.from_numpy(rng.integers(count, size=count))) for _ in range(rounds)]
    return Measured(figure(torch.arange(count)) if value is None else value, float(np.std(drawn, ddof=1)))


def mean_of(values: Tensor, *, rounds: int = 1000, seed: int = 0) -> Measured:
    """Return the mean of one value per photograph, with its bootstrap error."""
    return bootstrap(len(values), lambda chosen: float(values[chosen].mean()), rounds=rounds, seed=seed)
