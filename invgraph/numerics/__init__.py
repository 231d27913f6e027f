"""Numerical building blocks shared by several layers."""
