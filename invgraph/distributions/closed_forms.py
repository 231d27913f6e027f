"""Moments and quantiles, of which a flow has no closed form, and how to estimate them."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.distributions import Distribution

from invgraph.errors import ClosedFormError


class NoClosedForms(Distribution):
    """Base class of distributions that can be sampled and evaluated, but have no moments in closed form."""

    @property
    def mean(self) -> Tensor:
        _refuse("mean", "d.sample((10_000,)).mean(0)")

    @property
    def variance(self) -> Tensor:
        _refuse("variance", "d.sample((10_000,)).var(0)")

    @property
    def stddev(self) -> Tensor:
        _refuse("stddev", "d.sample((10_000,)).std(0)")

    @property
    def mode(self) -> Tensor:
        _refuse("mode", "the likeliest sample, or an ascent of d.log_prob(x) from there")

    def entropy(self) -> Tensor:
        _refuse("entropy", "-d.sample_and_log_prob((10_000,))[1].mean(0)")

    def cdf(self, value: Any) -> Tensor:
        _refuse("cdf", "the share of samples below: (d.sample((10_000,)) <= value).all(-1).double().mean(0)")

    def icdf(self, value: Any) -> Tensor:
        _refuse("icdf", "quantiles of samples: d.sample((10_000,)).quantile(p, 0)")


def _refuse(name: str, estimate: str) -> NoReturn:
    raise ClosedFormError(f"FlowDistribution.{name}", "a flow", f"no closed form: estimate it by {estimate}")
