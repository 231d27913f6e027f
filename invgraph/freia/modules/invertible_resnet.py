"""FrEIA's normalization of activations, and its residual block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.errors import GraphError, NumericsError
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, positions, require_one
from invgraph.fused.channel_affine import scale_and_shift, shift_and_scale_back
from invgraph.fused.switch import fused
from invgraph.numerics.reductions import per_sample
from invgraph.torch_internals import is_plain

__all__ = ["ActNorm", "IResNetLayer"]

_SMALL = 65_536  # numbers, below which a call costs more than the arithmetic


class ActNorm(InvertibleModule):
    """Scale and shift each channel; the first call, in either direction, sets both so that its batch is normalized.

    A checkpoint that is loaded sets them as well, and then no call does.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        init_data: A batch that sets scale and shift at once.

    Raises:
        NumericsError: If a channel of the first batch has a single element, or is constant, so that it has no scale.
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
            advice = f"channel {channel} is constant or not finite: use a larger batch"
            raise NumericsError("ActNorm", given, advice)
        self.scale.copy_(-std.log().view_as(self.scale))
        self.bias.copy_(-(per_channel.mean(1) / std).view_as(self.bias))
        self.init_on_next_batch = False

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        if self.init_on_next_batch:
            self._initialize_with_data(x[0])
        log_jac = (self.scale.sum() * positions(x[0])).expand(x[0].shape[0])
        if x[0].numel() >= _SMALL and is_plain(x[0]) and fused.enabled:
            function = shift_and_scale_back if rev else scale_and_shift
            return (function(x[0], self.scale, self.bias),), -log_jac if rev else log_jac
        if rev:
            return ((x[0] - self.bias) * torch.exp(-self.scale),), -log_jac
        return (x[0] * self.scale.exp() + self.bias,), log_jac

    def output_dims(self, input_dims: Any) -> Any:
        require_one(self, input_dims)
        return input_dims

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "scale" in state_dict:
            self.init_on_next_batch = False


class IResNetLayer(OneInput):
    """A residual block that is inverted by iteration, with a stochastic estimate of its log-determinant.

    Call :meth:`lipschitz_correction` after each step of the optimizer: the block is invertible while the residual is a
    contraction. Other than in FrEIA, the log-determinant has a gradient, and that of the inverse is taken at its
    result.

    Arguments:
        dims_in: Shape of the input, in a list: a vector or an image.
        dims_c: Not used.
        internal_size: Channels of the hidden layers. Default: twice those of the input.
        n_internal_layers: Number of layers between hidden layers.
        jacobian_iterations: Terms of the power series of the log-determinant.
        hutchinson_samples: Random vectors of the trace estimates.
        fixed_point_iterations: Iterations of the inverse.
        lipschitz_iterations: Iterations of the power method.
        lipschitz_batchsize: Random vectors of the power method.
        spectral_norm_max: Largest spectral norm of a layer, at most 1.
    """

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = (),
        internal_size: int | None = None,
        n_internal_layers: int = 1,
        jacobian_iterations: int = 20,
        hutchinson_samples: int = 1,
        fixed_point_iterations: int = 50,
        lipschitz_iterations: int = 10,
        lipschitz_batchsize: int = 10,
        spectral_norm_max: float = 0.8,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.dims_in = require_one(self, self.dims_in)
        if not 0 < spectral_norm_max <= 1:
            raise GraphError("IResNetLayer", f"spectral_norm_max={spectral_norm_max}", "it must be in (0, 1]")
        self.internal_size = internal_size or 2 * self._channels
        self.n_internal_layers = n_internal_layers
        self.jacobian_iterations = jacobian_iterations
        self.hutchinson_samples = hutchinson_samples
        self.fixed_point_iterations = fixed_point_iterations
        self.lipschitz_iterations = lipschitz_iterations
        self.lipschitz_batchsize = lipschitz_batchsize
        self.spectral_norm_max = spectral_norm_max
        sizes = [self._channels, *[self.internal_size] * (n_internal_layers + 1), self._channels]
        parts: list[nn.Module] = []
        for size, following in pairwise(sizes):
            parts += [self._layer(size, following), nn.ELU()]
        self.residual = nn.Sequential(*parts[:-1])

    def _layer(self, size: int, following: int) -> nn.Module:
        if len(self.dims_in) == 1:
            return nn.Linear(size, following)
        return nn.Conv2d(size, following, 3, padding=1)

    @torch.no_grad()
    def lipschitz_correction(self) -> None:
        """Scale down the weights of every layer whose spectral norm is larger than ``spectral_norm_max``."""
        for layer in self.residual:
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            weight = layer.weight
            x = torch.randn(self.lipschitz_batchsize, weight.shape[1], *self.dims_in[1:]).to(weight)
            for _ in range(self.lipschitz_iterations):
                x = self._transposed(weight, self._product(weight, x))
                x = x / x.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in self.dims_in))
            norm = (self._product(weight, x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max()
            weight *= torch.clamp(self.spectral_norm_max / norm, max=1.0)

    def _product(self, weight: Tensor, x: Tensor) -> Tensor:
        return functional.linear(x, weight) if weight.ndim == 2 else functional.conv2d(x, weight)

    def _transposed(self, weight: Tensor, x: Tensor) -> Tensor:
        return functional.linear(x, weight.t()) if weight.ndim == 2 else functional.conv_transpose2d(x, weight)

    def forward(
        self, x: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        if not rev:
            return (x[0] + self.residual(x[0]),), self._log_jac(x[0]) if jac else None
        with torch.no_grad():
            found = x[0]
            for _ in range(self.fixed_point_iterations):
                found = x[0] - self.residual(found)
        found = x[0] - self.residual(found)
        return (found,), -self._log_jac(found) if jac else None

    def _log_jac(self, x: Tensor) -> Tensor:
        """Return a power series of traces, each estimated with random signs."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            signs = [torch.randn_like(x).sign() for _ in range(self.hutchinson_samples)]
            residual = self.residual(x)
            vectors, total = list(signs), x.new_zeros(x.shape[0])
            for k in range(1, self.jacobian_iterations + 1):
                vectors = [
                    torch.autograd.grad(residual, x, v, create_graph=differentiable, retain_graph=True)[0]
                    for v in vectors
                ]
                traces = [per_sample(v * sign) for v, sign in zip(vectors, signs, strict=True)]
                total = total - (-1) ** k * torch.stack(traces).mean(0) / k
        return total if differentiable else total.detach()
