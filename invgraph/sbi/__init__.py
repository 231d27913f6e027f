"""Flows for the packages ``sbi`` and ``lampe``: neural posteriors and likelihoods with any flow of this library.

The package sbi is needed for its estimator only: ``pip install sbi``. lampe takes any module that makes a
distribution from an observation, such as :class:`LampeFlow`.
"""

from typing import TYPE_CHECKING, Any

from invgraph.sbi.for_lampe import LampeFlow as LampeFlow
from invgraph.sbi.for_lampe import lampe_flow as lampe_flow

if TYPE_CHECKING:
    from invgraph.sbi.for_sbi import SbiEstimator as SbiEstimator
    from invgraph.sbi.for_sbi import likelihood as likelihood
    from invgraph.sbi.for_sbi import posterior as posterior
else:

    def __getattr__(name: str) -> Any:
        """Import the parts that need the package sbi when they are first asked for."""
        if name in ("SbiEstimator", "likelihood", "posterior"):
            from invgraph.sbi import for_sbi

            return getattr(for_sbi, name)
        raise AttributeError(f"module 'invgraph.sbi' has no attribute {name!r}")
