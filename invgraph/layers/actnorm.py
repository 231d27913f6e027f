"""Scale and shift per channel, initialized to normalize a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invgraph.core.assign import assign
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.fused.channel_affine import scale_and_shift, shift_and_scale_back
from invgraph.fused.switch import fused
from invgraph.numerics.channels import channel_moments
from invgraph.shapes import Tensors, positions
from invgraph.torch_internals import has_data, is_plain


class ActNorm(Invertible):
    r"""Scale and shift each channel; :meth:`initialize` sets both so that a given batch is normalized (GLOW).

    .. math:: y = x \exp(s) + t

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        The sum of s over channels and positions, nats per sample.

    Arguments:
        in_shapes: Shape of the input.

    Raises:
        GraphError: If the layer is called before ``initialize(batch)`` or a checkpoint has set its parameters.
        NumericsError: If a channel of that batch has a single element or is constant, so that its scale is undefined.

    References:
        D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018,
        https://arxiv.org/abs/1807.03039

    Example:
        >>> import torch, invgraph as ig
        >>> norm = ig.ActNorm((2,))
        >>> norm.initialize((torch.tensor([[0.0, 1.0], [2.0, 5.0]]),))
        >>> (y,), log_det = norm((torch.tensor([[1.0, 3.0]]),))
        >>> y.detach()
        tensor([[0., 0.]])
    """

    range_kind = "any"
    fixed_size_reason = None
    initialized: Tensor

    def __init__(self, in_shapes: object, cond_shapes: object = ()) -> None:
        super().__init__(in_shapes, cond_shapes)
        channels, *sizes = self.in_shapes[0]
        self.log_scale = nn.Parameter(torch.zeros(channels, *(1 for _ in sizes)))
        self.shift = nn.Parameter(torch.zeros(channels, *(1 for _ in sizes)))
        # The buffer is the state; the flag notes that it was seen to be True, so that calls need not read it.
        # Not boolean: AveragedModel(use_buffers=True) subtracts buffers.
        self.register_buffer("initialized", torch.zeros((), dtype=torch.uint8))
        self.ready = False
        self._seen = 0  # id of the tensor in which it was seen: functional_call puts others in its place

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Set scale and shift so that the outputs for this batch have mean 0 and standard deviation 1 per channel."""
        mean, std = channel_moments(self.label, xs[0])
        self._set_parameters(-std.log(), -mean / std)

    @torch.no_grad()
    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        mean, std = channel_moments(self.label, ys[0])
        self._set_parameters(std.log(), mean)

    def _set_parameters(self, log_scale: Tensor, shift: Tensor) -> None:
        assign(self, "log_scale", log_scale)
        assign(self, "shift", shift)
        self.initialized.fill_(1)
        self.ready, self._seen = True, id(self.initialized)

    def _is_initialized(self) -> bool:
        """Read the buffer, where it has data that can be read."""
        if has_data(self.initialized):
            self.ready, self._seen = bool(self.initialized), id(self.initialized)
        return self.ready

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        log_det = self._ready_log_det(xs[0])
        if is_plain(xs[0]) and fused.enabled:
            return (scale_and_shift(xs[0], self.log_scale, self.shift),), log_det
        return (torch.addcmul(self.shift, xs[0], self.log_scale.exp()),), log_det

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        log_det = self._ready_log_det(ys[0])
        if is_plain(ys[0]) and fused.enabled:
            return (shift_and_scale_back(ys[0], self.log_scale, self.shift),), -log_det
        return ((ys[0] - self.shift) * torch.exp(-self.log_scale),), -log_det

    def _ready_log_det(self, x: Tensor) -> Tensor:
        if not self.ready or (not torch.compiler.is_compiling() and self._seen != id(self.initialized)):
            self._require_initialized()
        return (self.log_scale.sum() * positions(self.in_shapes[0])).expand(x.shape[0])

    def _require_initialized(self) -> None:
        compiling = torch.compiler.is_compiling()  # the data can't be read
        if not (self.ready if compiling else self._is_initialized()):
            advice = "call initialize(batch) once, before training"
            more = "; if it is initialized, call the model once before compiling it" if compiling else ""
            raise GraphError(self.label, "a call before initialize", advice + more)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "initialized" in state_dict:
            self._is_initialized()
