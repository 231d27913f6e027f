"""Check any layer or graph against the contract, and draw random ones: what this library tests itself with."""

from invgraph.testing.randomize import randomize as randomize
