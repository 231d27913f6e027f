"""Modules that hold a graph: flows, and the reversible runner."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import Tensor, nn

G = TypeVar("G")


class GraphHolder(nn.Module, Generic[G]):
    """Base class of modules that hold a graph, as the child ``model``.

    Torch's exporters have an attribute ``graph`` of their own on every module that they make, and can't export a module
    whose child has that name. :attr:`graph` is the same object; checkpoints from the time when it was the child load.
    """

    model: G

    @property
    def graph(self) -> G:
        """The graph, or the runner of it, that the module holds."""
        return self.model

    def __setattr__(self, name: str, value: Tensor | nn.Module | Any) -> None:
        if name in ("graph", "model"):
            self._hold(value)
            name = "model"
        super().__setattr__(name, value)

    def _hold(self, graph: Any) -> None:
        """Take what follows from a graph that is about to be held, or refuse it."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        old = f"{prefix}graph."
        for name in [name for name in state_dict if name.startswith(old)]:
            state_dict[f"{prefix}model.{name.removeprefix(old)}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
