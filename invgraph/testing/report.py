"""What a check found, node by node, as a table."""

from __future__ import annotations

from typing import NamedTuple


class NodeReport(NamedTuple):
    """One node: how exact it is, and how much it amplifies what the others leave inexact.

    ``log_det_error`` is None where the node is too large for its Jacobian to be computed; ``amplification`` is then an
    estimate from below.
    """

    name: str
    layer: str
    dims: int
    round_trip: float
    log_det_error: float | None
    amplification: float


class Report(NamedTuple):
    """What :func:`check_invertible` found: a row for each node, the last one for the whole.

    Attributes:
        nodes: the rows; of a layer, a single one.
        checks: what was checked, in words.
    """

    nodes: tuple[NodeReport, ...]
    checks: tuple[str, ...]

    @property
    def whole(self) -> NodeReport:
        """The row of the module itself."""
        return self.nodes[-1]

    def __str__(self) -> str:
        rows = [("node", "layer", "dims", "round trip", "log-det error", "amplification")]
        rows += [_cells(node) for node in self.nodes]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, f"kept: {'; '.join(self.checks)}"])


def _cells(node: NodeReport) -> tuple[str, str, str, str, str, str]:
    error = "-" if node.log_det_error is None else f"{node.log_det_error:.1e}"
    return node.name, node.layer, str(node.dims), f"{node.round_trip:.1e}", error, f"{node.amplification:.1f}"


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Names to the left, numbers to the right."""
    return [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
