"""The deprecated name of GraphINN."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from invgraph.errors import ArgumentError
from invgraph.freia.framework.graph_inn import GraphINN
from invgraph.freia.framework.node import Node

__all__ = ["ReversibleGraphNet"]


class ReversibleGraphNet(GraphINN):
    """Deprecated name of :class:`GraphINN`; it prints itself.

    Arguments:
        node_list: All nodes.
        ind_in: No longer taken: write InputNodes.
        ind_out: No longer taken: write OutputNodes.
        verbose: Print the network.
        force_tuple_output: Return one output in a tuple as well.
    """

    def __init__(
        self,
        node_list: Sequence[Node],
        ind_in: Any = None,
        ind_out: Any = None,
        verbose: bool = True,
        force_tuple_output: bool = False,
    ) -> None:
        # As FrEIA's, it is attributed to this line, so that Python's default filters do not show it to users.
        warnings.warn("ReversibleGraphNet is deprecated: write GraphINN", DeprecationWarning, stacklevel=1)
        for name, value, kind in (("ind_in", ind_in, "InputNode"), ("ind_out", ind_out, "OutputNode")):
            if value is not None:
                raise ArgumentError("ReversibleGraphNet", f"{name}={value!r}", f"write {kind}s in the list of nodes")
        super().__init__(node_list, force_tuple_output=force_tuple_output, verbose=verbose)
