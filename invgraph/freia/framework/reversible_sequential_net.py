"""The deprecated name of SequenceINN."""

from __future__ import annotations

import warnings

from invgraph.freia.framework.sequence_inn import SequenceINN

__all__ = ["ReversibleSequential"]


class ReversibleSequential(SequenceINN):
    """Deprecated name of :class:`SequenceINN`.

    Arguments:
        dims: Sizes of the input, without the batch.
    """

    def __init__(self, *dims: int) -> None:
        # As FrEIA's, it is attributed to this line, so that Python's default filters do not show it to users.
        warnings.warn("ReversibleSequential is deprecated: write SequenceINN", DeprecationWarning, stacklevel=1)
        super().__init__(*dims)
