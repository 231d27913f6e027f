"""Whole models in a few lines, to be used as they are or copied and changed."""

from invgraph.recipes.splines import spline_flow as spline_flow
