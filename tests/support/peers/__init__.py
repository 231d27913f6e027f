"""Proofs of docs/comparison.rst: for each row of a library's column the cell, and code that shows it."""
