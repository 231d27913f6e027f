"""Calibration of a conditional density: ranks of the true values, and the coverage of its regions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from invgraph.arguments import as_number, as_numbers, require_count
from invgraph.errors import ArgumentError, GraphError, NumericsError, ShapeError
from invgraph.flow import Flow


class Conditional(Protocol):
    """The parts of a flow that are used here; flows of other libraries can be wrapped to have them."""

    def sample(self, n: int, c: Tensor) -> Tensor:
        """Return samples ``(n, B, D)``."""

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """Return log-densities ``(B,)``."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of true values among samples, and how often regions of a given probability contain them.

    Attributes:
        ranks: Number of samples below the true value, for each pair and element, ``(N, D)``, from 0 to ``draws``; of
            samples that equal it, a random part.
        levels: Fraction of samples that are more probable than the true value, ``(N,)``, and of a random part of those
            that are as probable; uniform if calibrated.
        draws: Number of samples per pair.
    """

    ranks: Tensor
    levels: Tensor
    draws: int

    def coverage(self, levels: Any = None) -> tuple[Tensor, Tensor]:
        """Return probabilities of highest-density regions, and how often these regions contain the true value.

        Coverage above the probability means that the density is too wide, below that it is too narrow. Of
        ``draws + 1`` equally likely ranks, each stands for the middle of its share, so that few draws add no bias.

        Arguments:
            levels: Probabilities of the regions, in [0, 1]. Default: 0, 0.05, ..., 1.

        Raises:
            ArgumentError: If levels are not numbers.
            GraphError: If a level lies outside [0, 1].
        """
        levels = torch.linspace(0, 1, 21) if levels is None else as_numbers("coverage", "levels", levels).flatten()
        if not bool(((levels >= 0) & (levels <= 1)).all()):
            raise GraphError("coverage", f"levels={levels.tolist()}", "levels are probabilities, between 0 and 1")
        middles = (self.levels.double() * self.draws + 0.5) / (self.draws + 1)
        inside = middles.unsqueeze(0) <= levels.unsqueeze(1).to(middles)
        dtype = torch.get_default_dtype()
        return levels.to(dtype), inside.to(dtype).mean(1)

    def histogram(self, bins: int = 20) -> Tensor:
        """Return how many ranks of each element fall into bins, ``(D, bins)``.

        Bins are equal if ``draws + 1`` is a multiple of their number, as 1,000 is of 20; otherwise some of them stand
        for one rank more than others.
        """
        require_count("Calibration.histogram", "bins", bins, most=self.draws + 1)
        places = (self.ranks * bins).div(self.draws + 1, rounding_mode="floor").long()
        return torch.nn.functional.one_hot(places, bins).sum(0)

    def band(self, bins: int = 20, probability: float = 0.99) -> tuple[int, int]:
        """Return the counts between which a bin of a calibrated density lies with a given probability.

        The number of ranks in one bin is binomial, with N trials of probability ``1 / bins``; where bins differ, the
        band is that of the smallest and of the largest.
        """
        bins = require_count("Calibration.band", "bins", bins, most=self.draws + 1)
        if not 0 < as_number("Calibration.band", "probability", probability) < 1:
            raise GraphError("Calibration.band", f"probability={probability}", "probability must be in (0, 1)")
        tail, classes = (1 - probability) / 2, self.draws + 1
        smallest, largest = classes // bins / classes, -(-classes // bins) / classes
        return _quantile(len(self.ranks), smallest, tail), _quantile(len(self.ranks), largest, 1 - tail)


def _quantile(count: int, p: float, probability: float) -> int:
    """Return the least number of successes in ``count`` trials that is not exceeded with a given probability."""
    if p == 1:
        return count
    k = torch.arange(count + 1, dtype=torch.float64)
    log_mass = math.lgamma(count + 1) - torch.lgamma(k + 1) - torch.lgamma(count - k + 1)
    mass = (log_mass + k * math.log(p) + (count - k) * math.log1p(-p)).exp().cumsum(0)
    return int(torch.searchsorted(mass, torch.tensor(probability, dtype=mass.dtype)).clamp(max=count))


def _rank(samples: Tensor, truth: Tensor) -> Tensor:
    """Return how many samples lie below the truth; of those that equal it, as discrete values do, a random number."""
    equal = (samples == truth).sum(0)
    part = (torch.rand_like(equal, dtype=torch.float64) * (equal + 1)).floor().to(equal)
    return (samples < truth).sum(0) + part


@torch.no_grad()
def calibrate(flow: Conditional, x: Tensor, c: Tensor, draws: int = 999, at_once: int = 1 << 18) -> Calibration:
    """Rank true values among samples of a conditional density (simulation-based calibration, and expected coverage).

    With pairs from the joint distribution, which were not used in training, ranks and levels of a density that is right
    are uniform. The reverse does not hold: a density that ignores its condition and returns the prior is also
    calibrated.

    Arguments:
        flow: A :class:`~invgraph.Flow` of one input and one condition, or anything else with its ``sample`` and
            ``log_prob``.
        x: True values, ``(N, D)``.
        c: Condition of each, ``(N, ...)``.
        draws: Number of samples per pair. Default: 999, so that ranks fall into 1,000 classes.
        at_once: Number of samples that are drawn at once. Default: 262,144.

    Raises:
        ArgumentError: If x or c is not a tensor, or the flow can't sample.
        ShapeError: If x is not a matrix of the elements of a sample, or x and c differ in their number of rows.
        NumericsError: If a log-density is NaN.

    References:
        S. Talts et al., "Validating Bayesian Inference Algorithms with Simulation-Based Calibration", 2018,
        https://arxiv.org/abs/1804.06788; J. Hermans et al., "A Trust Crisis In Simulation-Based Inference? Your
        Posterior Approximations Can Be Unfaithful", 2021, https://arxiv.org/abs/2110.06581

    Example:
        >>> import torch, invgraph as ig
        >>> flow = ig.recipes.spline_flow(features=2, context=3, blocks=1, hidden=8)
        >>> truth = flow.sample(1, torch.zeros(100, 3))[0]  # from the density itself: calibrated
        >>> result = ig.inference.calibrate(flow, truth, torch.zeros(100, 3), draws=99)
        >>> result.ranks.shape, result.histogram(bins=10).shape, result.band(bins=10)
        (torch.Size([100, 2]), torch.Size([2, 10]), (3, 18))
    """
    draws = require_count("calibrate", "draws", draws)
    at_once = require_count("calibrate", "at_once", at_once)
    for name, value in (("x", x), ("c", c)):
        if not isinstance(value, Tensor):
            raise ArgumentError("calibrate", f"{name}: {type(value).__name__}", f"{name} must be a tensor")
    if not callable(getattr(flow, "sample", None)) or not callable(getattr(flow, "log_prob", None)):
        advice = "expected a Flow, or a module with its methods sample and log_prob"
        raise ArgumentError("calibrate", f"flow: {type(flow).__name__}", advice)
    if x.ndim != 2 or len(x) != len(c):
        given = f"x of shape {tuple(x.shape)}, c of shape {tuple(c.shape)}"
        raise ShapeError("calibrate", given, "expected x (N, D) and c (N, ...): a condition for each row")
    ranks, levels = [], []
    for part, given_c in zip(x.split(max(1, at_once // draws)), c.split(max(1, at_once // draws)), strict=True):
        samples = flow.sample(draws, given_c)
        if samples.shape != (draws, *part.shape):
            given = f"samples of shape {tuple(samples.shape)} for x of shape {tuple(part.shape)}"
            raise ShapeError("calibrate", given, f"expected {(draws, *part.shape)}: x has the elements of a sample")
        ranks.append(_rank(samples, part))
        if getattr(type(flow), "log_prob", None) is Flow.log_prob:
            log_prob = flow.log_prob(samples, given_c)  # what depends on a condition alone is computed once
        else:
            spread = given_c.expand(draws, *given_c.shape).flatten(0, 1)
            log_prob = flow.log_prob(samples.flatten(0, 1), spread).view(draws, len(part))
        of_truth = flow.log_prob(part, given_c)
        if bool(log_prob.isnan().any()) or bool(of_truth.isnan().any()):  # NaN would pass for the most probable value
            advice = "look where they come from with ig.diagnose(graph, x, c), and for NaN in x and c"
            raise NumericsError("calibrate", "log-densities that are NaN", advice)
        levels.append(_rank(-log_prob, -of_truth).to(x.dtype) / draws)
    return Calibration(torch.cat(ranks), torch.cat(levels), draws)
