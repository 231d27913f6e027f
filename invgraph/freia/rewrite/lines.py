"""Lines of several statements, taken apart before a script is looked at."""

from __future__ import annotations

import re
from typing import Any

import libcst as cst

from invgraph.freia.rewrite.names import dotted

_NETWORK = re.compile(r"\bFrEIA\b|INN\(|ReversibleGraphNet|ReversibleSequential|Node\(|\.append\(")


class OneStatementEach(cst.CSTTransformer):
    """Give each statement a line of its own where a line or a one-line block deals with networks."""

    def leave_SimpleStatementLine(self, original_node: Any, updated_node: Any) -> Any:
        if len(updated_node.body) < 2 or not _NETWORK.search(dotted(updated_node)):
            return updated_node
        lines = _lines(updated_node.body)
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_SimpleStatementSuite(self, original_node: Any, updated_node: Any) -> Any:
        if not _NETWORK.search(dotted(updated_node)):
            return updated_node
        return cst.IndentedBlock(_lines(updated_node.body))


def _lines(statements: Any) -> list[cst.SimpleStatementLine]:
    plain = [statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT) for statement in statements]
    return [cst.SimpleStatementLine([statement]) for statement in plain]
