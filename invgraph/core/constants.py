"""Constants of a layer: buffers that are not saved, and computed again wherever their memory is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from invgraph.numerics.seeding import to_defaults
from invgraph.torch_internals import replace_buffers


class WithConstants(nn.Module):
    """Base class of modules with constants: buffers that follow from the arguments of the constructor.

    They are neither saved nor loaded. They are filled again after every conversion, because ``to_empty`` leaves them
    without content, and when a state is assigned to a module that was built on the meta device.
    """

    def _constants(self) -> dict[str, Tensor]:
        """Return the constants by name, on any device; floating-point ones in float64."""
        raise NotImplementedError

    def _register_constants(self) -> None:
        """Register the constants, on the default device; called at the end of a constructor."""
        constants = self._constants()
        self._constant_names = tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, to_defaults(value), persistent=False)

    def materialize_constants(self, like: Tensor | None) -> None:
        """Give constants on the meta device their content, with the dtype and device of a tensor of the model."""
        if not any(self.get_buffer(name).is_meta for name in self._constant_names):
            return
        for name, value in self._constants().items():
            dtype = like.dtype if like is not None and value.is_floating_point() else to_defaults(value).dtype
            device = torch.get_default_device() if like is None else like.device
            setattr(self, name, value.to(device, dtype))

    def _renew_constants(self) -> None:
        """Give a shallow copy of a module constants of its own, where what they follow from is no longer the same."""
        replace_buffers(self, {name: value.to(self.get_buffer(name)) for name, value in self._constants().items()})

    @torch.no_grad()
    def _fill_constants(self) -> None:
        for name, value in self._constants().items():
            buffer = self.get_buffer(name)
            if not buffer.is_meta:
                # Computed from float64, because a conversion would keep the rounding of the old dtype.
                if buffer.is_inference():
                    setattr(self, name, value.to(buffer))
                else:
                    buffer.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill_constants()
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if _assigns(args):
            self.materialize_constants(floating_entry(state_dict))


def materialize_constants(module: nn.Module, state_dict: Mapping[str, Any], arguments: tuple[Any, ...]) -> None:
    """Give all constants of a module their content, where a state is assigned to it.

    Layers whose state is empty can't tell the device from it, so the graph does this for them.

    Arguments:
        module: The module.
        state_dict: Its state.
        arguments: Further arguments of ``_load_from_state_dict``.
    """
    if _assigns(arguments):
        like = floating_entry(state_dict)
        for part in module.modules():
            if isinstance(part, WithConstants):
                part.materialize_constants(like)


def floating_entry(state_dict: Mapping[str, Any]) -> Tensor | None:
    """Return the first floating-point tensor of a state."""
    tensors = (value for value in state_dict.values() if isinstance(value, Tensor))
    return next((tensor for tensor in tensors if tensor.is_floating_point() and not tensor.is_meta), None)


def _assigns(arguments: tuple[Any, ...]) -> bool:
    """True if ``load_state_dict`` was called with ``assign=True``."""
    metadata = arguments[0] if arguments else {}
    return bool(metadata.get("assign_to_params_buffers", False))
