"""Couplings by splines, which FrEIA's development version has."""

from invgraph.freia.modules.splines.binned import BinnedSpline as BinnedSpline
from invgraph.freia.modules.splines.linear import LinearSpline as LinearSpline
from invgraph.freia.modules.splines.rational_quadratic import RationalQuadraticSpline as RationalQuadraticSpline

__all__ = ["BinnedSpline", "LinearSpline", "RationalQuadraticSpline"]
