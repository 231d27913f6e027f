"""Tests for layers and graphs: contract checks, and hypothesis strategies for random ones."""

from typing import TYPE_CHECKING, Any

from invgraph.errors import DependencyError
from invgraph.testing.check import check_invertible as check_invertible
from invgraph.testing.randomize import randomize as randomize
from invgraph.testing.report import NodeReport as NodeReport
from invgraph.testing.report import Report as Report

if TYPE_CHECKING:
    from invgraph.testing.strategies import graphs as graphs
    from invgraph.testing.strategies import layers as layers
    from invgraph.testing.strategies import shapes as shapes
else:

    def __dir__() -> list[str]:
        """The public names, among them those that are imported when first asked for."""
        return ["NodeReport", "Report", "check_invertible", "graphs", "layers", "randomize", "shapes"]

    def __getattr__(name: str) -> Any:
        """Import the strategies on first use: they need hypothesis, and the rest does not."""
        if name not in ("graphs", "layers", "shapes"):
            raise AttributeError(f"module 'invgraph.testing' has no attribute {name!r}")
        try:
            from invgraph.testing import strategies
        except ModuleNotFoundError as error:
            if error.name != "hypothesis":
                raise
            advice = "pip install hypothesis"
            raise DependencyError(f"testing.{name}", "hypothesis is not installed", advice) from error
        return getattr(strategies, name)
