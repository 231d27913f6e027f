"""A layer or network of FrEIA's contract, run backwards."""

from __future__ import annotations

from typing import Any

from invgraph.freia.contract import output_dims
from invgraph.freia.modules.base import InvertibleModule

__all__ = ["Inverse"]


class Inverse(InvertibleModule):
    """The inverse of a layer or network, as a layer.

    Arguments:
        module: Layer or network, already built.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(output_dims(module, module.dims_in), module.dims_c)
        self.module = module

    @property
    def force_tuple_output(self) -> bool:
        """False if the module is a network that returns its only output as a tensor."""
        return bool(getattr(self.module, "force_tuple_output", True))

    def output_dims(self, input_dims: Any) -> Any:
        return self.module.dims_in

    def forward(self, *args: Any, rev: bool = False, **kwargs: Any) -> Any:
        return self.module(*args, rev=not rev, **kwargs)
