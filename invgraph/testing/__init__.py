"""Check any layer or graph against the contract, and draw random ones: what this library tests itself with."""

from invgraph.testing.check import check_invertible as check_invertible
from invgraph.testing.randomize import randomize as randomize
from invgraph.testing.report import NodeReport as NodeReport
from invgraph.testing.report import Report as Report
