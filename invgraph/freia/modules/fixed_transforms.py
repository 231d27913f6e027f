"""FrEIA's transforms without learned parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.errors import ArgumentError
from invgraph.freia import seeding
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, no_log_jac, positions, require_image
from invgraph.numerics.channels import mix
from invgraph.numerics.reductions import per_sample

__all__ = ["Fixed1x1Conv", "FixedLinearTransform", "InvertibleSigmoid", "PermuteRandom"]


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


class PermuteRandom(OneInput):
    """FrEIA's random order of the channels; a seed gives FrEIA's order, and leaves numpy's global generator alone.

    With :func:`invgraph.freia.seeds_like_freia`, a seed reseeds the global generator, as in FrEIA.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        seed: Seed of the order. None: the order comes from numpy's global generator, as in FrEIA.
    """

    preserves_volume = True

    def __init__(self, dims_in: Any, dims_c: Any = None, seed: int | None = None) -> None:
        super().__init__(dims_in, dims_c)
        self.in_channels = self._channels
        draw = seeding.numpy_from(seed).permutation
        order = torch.as_tensor(np.asarray(draw(self._channels), dtype=np.int64))
        self.perm = _constant(order)
        self.perm_inv = _constant(order.argsort())

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor | float]:
        order = self.perm_inv if rev else self.perm
        return (x[0].index_select(1, order),), no_log_jac(x[0], jac)


def _as_matrix(where: str, matrix: Any) -> Tensor:
    if not isinstance(matrix, Tensor):
        raise ArgumentError(where, f"M={type(matrix).__name__}", "specify the M argument, the matrix to multiply with")
    return matrix.detach()


class FixedLinearTransform(OneInput):
    """Multiply vectors by a fixed matrix, and add a fixed vector.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        M: The matrix.
        b: The vector; None adds nothing.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, M: Any = None, b: Tensor | None = None) -> None:  # noqa: N803
        super().__init__(dims_in, dims_c)
        matrix = _as_matrix("FixedLinearTransform", M)
        self.M = _constant(matrix.t().clone(memory_format=torch.contiguous_format))
        self.M_inv = _constant(matrix.t().inverse().contiguous())
        self.b: Any = 0.0 if b is None else _constant(b.detach().unsqueeze(0).clone())
        self.logDetM = _constant(torch.linalg.slogdet(matrix).logabsdet)

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        log_jac = self.logDetM.expand(x[0].shape[0])
        shifted = isinstance(self.b, Tensor)
        if rev:
            return (mix(x[0] - self.b if shifted else x[0], self.M_inv.t()),), -log_jac
        y = mix(x[0], self.M.t())
        return (y + self.b if shifted else y,), log_jac


class Fixed1x1Conv(OneInput):
    """Multiply the channels of an image by a fixed matrix, at every position.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
        M: The matrix; FrEIA multiplies by its transpose.
    """

    def __init__(self, dims_in: Any, dims_c: Any = None, M: Any = None) -> None:  # noqa: N803
        super().__init__(dims_in, dims_c)
        matrix = _as_matrix("Fixed1x1Conv", M)
        require_image(self, self.dims_in)
        self.M = _constant(matrix.t().reshape(*matrix.shape, 1, 1).clone(memory_format=torch.contiguous_format))
        self.M_inv = _constant(matrix.t().inverse().reshape(*matrix.shape, 1, 1).contiguous())
        self.logDetM = _constant(torch.linalg.slogdet(matrix).logabsdet)

    def forward(
        self, x: Sequence[Tensor], rev: bool = False, jac: bool = True, c: Any = None
    ) -> tuple[tuple[Tensor], Tensor]:
        log_jac = (self.logDetM * positions(x[0])).expand(x[0].shape[0])
        matrix = self.M_inv if rev else self.M
        return (mix(x[0], matrix.flatten(1)),), -log_jac if rev else log_jac

    def output_dims(self, input_dims: Any) -> Any:
        require_image(self, input_dims)
        return input_dims


class InvertibleSigmoid(OneInput):
    """The sigmoid, and the logit as its inverse; the log-determinant is summed over images too, other than in FrEIA.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Not used.
    """

    def forward(
        self, x_or_z: Sequence[Tensor], c: Any = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        value = x_or_z[0]
        if rev:
            return (torch.log(value) - torch.log1p(-value),), -per_sample(torch.log(value) + torch.log1p(-value))
        log_jac = per_sample(functional.logsigmoid(value) + functional.logsigmoid(-value))
        return (torch.sigmoid(value),), log_jac
