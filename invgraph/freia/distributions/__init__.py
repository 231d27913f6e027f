"""Distributions of FrEIA's development version, with the log-determinant in every log-probability."""

from invgraph.freia.distributions.normal import StandardNormalDistribution as StandardNormalDistribution
from invgraph.freia.distributions.transformed import PullBackDistribution as PullBackDistribution
from invgraph.freia.distributions.transformed import PushForwardDistribution as PushForwardDistribution

__all__ = ["PullBackDistribution", "PushForwardDistribution", "StandardNormalDistribution"]
