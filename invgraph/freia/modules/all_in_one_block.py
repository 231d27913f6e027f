"""FrEIA's block of an affine coupling, a global scale and shift, and a permutation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from invgraph.errors import GraphError
from invgraph.freia.affine import affine, clamped_log_slope, halves
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, positions, require_subnet
from invgraph.fused import sequence
from invgraph.numerics.channels import mix
from invgraph.numerics.linalg import own_precision
from invgraph.shapes import batched

__all__ = ["AllInOneBlock"]

_SLOW_ROTATION = 512
_FEW_CHANNELS = 64
_SMALL = 65_536  # numbers, below which a call costs more than the arithmetic


class AllInOneBlock(OneInput):
    """FrEIA's all-in-one block: couple the second part of the channels, scale and shift all of them, permute.

    Hard permutations are run as a gather of channels, whatever their matrix ``w_perm`` in the checkpoint is.

    Arguments:
        dims_in: Shape of the input, in a list.
        dims_c: Shapes of the conditions, of the input's spatial size.
        subnet_constructor: Function ``f(channels_in, channels_out) -> nn.Module``.
        affine_clamping: Bound of the coupling's log scale.
        gin_block: Make the coupling preserve volumes, and leave out the global scale.
        global_affine_init: Start of the global scale.
        global_affine_type: ``"SIGMOID"``, ``"SOFTPLUS"`` or ``"EXP"``: how the scale stays positive.
        permute_soft: Rotate the channels at random instead of permuting them.
        learned_householder_permutation: Number of learned reflections after the fixed matrix.
        reverse_permutation: Undo the permutation before the coupling.
    """

    w_perm: Any  # None where reflections are learned; programs put the matrix there
    w_perm_inv: Any

    def __init__(
        self,
        dims_in: Any,
        dims_c: Any = (),
        subnet_constructor: Any = None,
        affine_clamping: float = 2.0,
        gin_block: bool = False,
        global_affine_init: float = 1.0,
        global_affine_type: str = "SOFTPLUS",
        permute_soft: bool = False,
        learned_householder_permutation: int = 0,
        reverse_permutation: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c)
        shape, channels = self.dims_in[0], self._channels
        for condition in self.dims_c:
            if tuple(condition[1:]) != tuple(shape[1:]):
                given = f"a condition of shape {batched(condition)} for an input of shape {batched(shape)}"
                raise GraphError("AllInOneBlock", given, "dimensions of input and condition don't agree")
        self.conditional = len(self.dims_c) > 0
        self.condition_channels = sum(condition[0] for condition in self.dims_c)
        self.splits = [channels - channels // 2, channels // 2]
        self.in_channels = channels
        self.input_rank = len(shape) - 1
        self.sum_dims = tuple(range(1, 2 + self.input_rank))
        self.clamp = affine_clamping
        self.GIN = gin_block
        self.reverse_pre_permute = reverse_permutation
        self.householder = learned_householder_permutation
        self.global_affine_type = global_affine_type
        if permute_soft and channels > _SLOW_ROTATION:
            warnings.warn(f"a soft permutation of {channels} channels takes long to draw and to apply", stacklevel=2)
        per_channel = (1, channels, *(1 for _ in shape[1:]))
        start = _inverse_gain(global_affine_type, global_affine_init)
        self.global_scale = nn.Parameter(torch.full(per_channel, start))
        self.global_offset = nn.Parameter(torch.zeros(per_channel))
        self._draw(permute_soft, (channels, *per_channel[1:]))
        make = require_subnet(self, subnet_constructor)
        self.subnet = make(self.splits[0] + self.condition_channels, 2 * self.splits[1])

    def _draw(self, soft: bool, shape: Sequence[int]) -> None:
        """Draw the fixed matrix from numpy's global generator, as FrEIA does."""
        channels = self._channels
        if soft:
            w = _random_rotation(channels)
        else:
            w = torch.eye(channels, dtype=torch.float64)[torch.from_numpy(np.random.permutation(channels))]
        w = w.to(torch.get_default_dtype())
        self._hard = not soft and not self.householder
        if self.householder:
            self.w_perm = self.w_perm_inv = None
            self.vk_householder = nn.Parameter(0.2 * torch.randn(self.householder, channels))
            self.w_0 = nn.Parameter(w, requires_grad=False)
        else:
            self.w_perm = nn.Parameter(w.reshape(shape), requires_grad=False)
            self.w_perm_inv = nn.Parameter(w.t().reshape(shape), requires_grad=False)

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        value = x[0]
        if rev:
            value, scaling = self._permute(value, rev=True)
        elif self.reverse_pre_permute:
            value = self._pre_permute(value)
        first, second = torch.split_with_sizes(value, self.splits, dim=1)
        params = sequence.run(self.subnet, first, tuple(c) if self.conditional else ())
        params = params if params.dtype == value.dtype else params.to(value.dtype)
        second, log_jac = self._affine(second, params, rev=rev)
        value = torch.cat((first, second), dim=1)
        if not rev:
            value, scaling = self._permute(value)
        elif self.reverse_pre_permute:
            value = self._pre_permute(value, rev=True)
        if not self.GIN or isinstance(scaling, Tensor):
            log_jac = torch.add(log_jac, scaling, alpha=-positions(value) if rev else positions(value))
        return (value,), log_jac

    # The names and results of the three methods below are FrEIA's, because programs override them.

    def _permute(self, x: Tensor, rev: bool = False) -> tuple[Tensor, Any]:
        """Scale, shift and permute, or undo that; and return the log-determinant of the scale at one position."""
        if self.GIN:
            if rev:
                return self._reorder(x, inverse=True) - self.global_offset, 0.0
            return self._reorder(x + self.global_offset, inverse=False), 0.0
        scale = self.global_scale_activation(self.global_scale)
        if rev:
            y = (self._reorder(x, inverse=True) - self.global_offset) / scale
        elif x.numel() < _SMALL:
            y = self._reorder(torch.addcmul(self.global_offset, x, scale), inverse=False)
        else:  # addcmul takes twice as long where it broadcasts
            y = self._reorder(x * scale + self.global_offset, inverse=False)
        return y, scale.log().sum()

    def _pre_permute(self, x: Tensor, rev: bool = False) -> Tensor:
        """Undo the permutation before the coupling, or do it after the inverse of the coupling."""
        return self._reorder(x, inverse=not rev)

    def _affine(self, x: Tensor, a: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        """Scale and shift the second part of the channels by what the subnet returned."""
        scale, shift = halves(a * 0.1, self.splits[1], "AllInOneBlock")
        log_slope = clamped_log_slope(self.clamp, torch.tanh, scale, rev)
        if self.GIN:
            log_slope = log_slope - log_slope.mean(self.sum_dims, keepdim=True)
        return affine(x, log_slope, shift, rev)

    def global_scale_activation(self, a: Tensor) -> Tensor:
        """Return the global scale from its parameter."""
        if self.global_affine_type == "SIGMOID":
            return 10 * torch.sigmoid(a - 2.0)
        if self.global_affine_type == "SOFTPLUS":
            return 0.1 * functional.softplus(a, beta=0.5)
        return torch.exp(a)

    def permute_function(self, x: Tensor, w: Tensor) -> Tensor:
        """Put the channels into the order of a permutation matrix, or multiply them by any other matrix."""
        w = w if w.ndim == 2 else w.flatten(1)
        # The order is read from the matrix at each call, because programs write into parameters by p.data.
        return x.index_select(1, _order(w)) if self._hard else mix(x, w)

    def _reorder(self, x: Tensor, *, inverse: bool) -> Tensor:
        """Permute or rotate the channels, or undo that."""
        if self.householder:
            w = self._construct_householder_permutation()
            return self.permute_function(x, w.transpose(0, 1) if inverse else w)
        return self.permute_function(x, self.w_perm_inv if inverse else self.w_perm)

    def _construct_householder_permutation(self) -> Tensor:
        """Return the fixed matrix times the learned reflections, with an axis of size 1 for each of the positions'."""
        w: Tensor = self.w_0
        with own_precision(w):
            vectors = self.vk_householder / self.vk_householder.norm(dim=1, keepdim=True)
            for v in vectors.unbind():
                w = torch.addr(w, w @ v, v, alpha=-2)
        return w.reshape(*w.shape, *(1 for _ in range(self.input_rank)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not self.householder and prefix + "w_perm" in state_dict:
            self._hard = _is_permutation(self.w_perm.flatten(1))


def _inverse_gain(kind: str, start: float) -> float:
    """Return the parameter for which the global scale has a given value."""
    if kind == "SIGMOID":
        return 2.0 - math.log(10.0 / start - 1.0)
    if kind == "SOFTPLUS":
        return 2.0 * math.log(math.expm1(5.0 * start))
    if kind == "EXP":
        return math.log(start)
    raise GraphError("AllInOneBlock", f"global_affine_type={kind!r}", "expected SIGMOID, SOFTPLUS or EXP")


def _random_rotation(channels: int) -> Tensor:
    """Return a float64 matrix, uniform over the rotations, from numpy's global generator."""
    q, r = np.linalg.qr(np.random.standard_normal((channels, channels)))
    q = q * np.sign(np.diag(r))
    q[0] *= np.sign(np.linalg.det(q))
    return torch.from_numpy(q)


def _order(matrix: Tensor) -> Tensor:
    """Return which channel each row of a permutation matrix picks; exact in float32 for any number of channels."""
    if len(matrix) <= _FEW_CHANNELS:  # for more, a product reads the matrix faster
        return matrix.argmax(1)
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    with own_precision(wide):
        return torch.mv(wide, torch.arange(len(wide), dtype=wide.dtype, device=wide.device)).round().long()


def _is_permutation(matrix: Tensor) -> bool:
    if matrix.is_meta:
        return False
    ones = (matrix == 1).sum(0) == 1
    return bool(ones.all()) and bool(((matrix == 1).sum(1) == 1).all()) and int((matrix != 0).sum()) == len(matrix)
