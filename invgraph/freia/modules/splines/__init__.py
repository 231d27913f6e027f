"""Splines, which FrEIA's development version has."""

from invgraph.freia.modules.splines.binned import BinnedSpline as BinnedSpline
from invgraph.freia.modules.splines.binned import BinnedSplineBase as BinnedSplineBase
from invgraph.freia.modules.splines.linear import LinearSpline as LinearSpline
from invgraph.freia.modules.splines.rational_quadratic import (
    ElementwiseRationalQuadraticSpline as ElementwiseRationalQuadraticSpline,
)
from invgraph.freia.modules.splines.rational_quadratic import RationalQuadraticSpline as RationalQuadraticSpline
from invgraph.freia.modules.splines.rational_quadratic import rational_quadratic_spline as rational_quadratic_spline

__all__ = [
    "BinnedSpline",
    "BinnedSplineBase",
    "ElementwiseRationalQuadraticSpline",
    "LinearSpline",
    "RationalQuadraticSpline",
    "rational_quadratic_spline",
]
