"""FrEIA's normalisation of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.errors import NumericsError
from invgraph.freia.modules.base import InvertibleModule, positions, require_one

__all__ = ["ActNorm"]


class ActNorm(InvertibleModule):
    """Scale and shift each channel; the first call, in either direction, sets both so that its batch is normalised.

    A checkpoint that is loaded sets them as well, and then no call does.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        init_data: A batch that sets scale and shift at once.

    Raises:
        NumericsError: A channel of the first batch has a single element, or is constant, so that it has no scale.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, init_data: Tensor | None = None) -> None:
        super().__init__(dims_in, dims_c)
        self.dims_in = require_one(self, self.dims_in)
        per_channel = (1, self.dims_in[0], *(1 for _ in self.dims_in[1:]))
        self.scale = nn.Parameter(torch.zeros(per_channel))
        self.bias = nn.Parameter(torch.zeros(per_channel))
        self.init_on_next_batch = True
        if init_data is not None:
            self._initialize_with_data(init_data)

    @torch.no_grad()
    def _initialize_with_data(self, data: Tensor) -> None:
        per_channel = data.transpose(0, 1).flatten(1)
        given = f"first batch of shape {tuple(data.shape)}"
        if per_channel.shape[1] < 2:
            raise NumericsError("ActNorm", given, "a standard deviation needs at least two elements per channel")
        std = per_channel.std(1)
        if not bool((std > 0).all()):
            channel = int((std > 0).logical_not().nonzero()[0])
            advice = f"channel {channel} is constant or not finite: start from a larger batch"
            raise NumericsError("ActNorm", given, advice)
        self.scale.copy_(-std.log().view_as(self.scale))
        self.bias.copy_(-(per_channel.mean(1) / std).view_as(self.bias))
        self.init_on_next_batch = False

    def forward(
        self, x: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        if self.init_on_next_batch:
            self._initialize_with_data(x[0])
        log_jac = (self.scale.sum() * positions(x[0])).expand(x[0].shape[0])
        if rev:
            return ((x[0] - self.bias) * torch.exp(-self.scale),), -log_jac
        return (torch.addcmul(self.bias, x[0], self.scale.exp()),), log_jac

    def output_dims(self, input_dims: Any) -> Any:
        require_one(self, input_dims)
        return input_dims

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "scale" in state_dict:
            self.init_on_next_batch = False
