"""Results of a check, node by node, as a table."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from invgraph.draw.table import lines_of


class NodeReport(NamedTuple):
    """Measurements of one node.

    Attributes:
        name: Name of the node, ``outer.inner`` in nested graphs.
        layer: Class of its layer.
        dims: Number of elements per sample.
        round_trip: Largest absolute error of a round trip, in either direction.
        log_det_error: Largest absolute error of the log-det against autograd; None if the node is too large for its
            Jacobian to be computed.
        amplification: Largest factor by which the inverse amplifies an error of its input; a lower bound if the
            Jacobian is not computed.
    """

    name: str
    layer: str
    dims: int
    round_trip: float
    log_det_error: float | None
    amplification: float


class Report(NamedTuple):
    """Result of :func:`check_invertible`: a row for each node, and a last one for the whole.

    Attributes:
        nodes: Rows; a single one for a layer.
        checks: Names of the checks that passed.
    """

    nodes: tuple[NodeReport, ...]
    checks: tuple[str, ...]

    @property
    def whole(self) -> NodeReport:
        """Row of the module itself."""
        return self.nodes[-1]

    def __str__(self) -> str:
        rows = [("node", "layer", "dims", "round trip", "log-det error", "amplification")]
        rows += [_cells(node) for node in self.nodes]
        passed = textwrap.wrap(f"passed: {'; '.join(self.checks)}", width=80, subsequent_indent="  ")
        return "\n".join([*lines_of(rows, numbers=range(2, 6)), *passed])


def _cells(node: NodeReport) -> tuple[str, str, str, str, str, str]:
    error = "-" if node.log_det_error is None else f"{node.log_det_error:.1e}"
    return node.name, node.layer, str(node.dims), f"{node.round_trip:.1e}", error, f"{node.amplification:.1f}"
