"""The channels times a fixed matrix: any invertible one, or a random rotation (the paper's soft permutation)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from invgraph.arguments import as_matrix, as_numbers
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.numerics.channels import is_more_precise, mix, nearest_rotation, random_rotation
from invgraph.numerics.seeding import start_seed, to_defaults
from invgraph.shapes import Tensors, positions
from invgraph.torch_internals import version

_WORST_CONDITION = 1e12


class _Mixing(Invertible):
    """A constant matrix that mixes the channels, the same at every position."""

    range_kind = "any"
    fixed_size_reason = None
    matrix: Tensor

    @abstractmethod
    def _refresh(self, more_precise: bool) -> None:
        """Compute again what is derived from the matrix; ``more_precise`` if its dtype was widened."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.matrix.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._refresh(is_more_precise(before, self.matrix.dtype))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "matrix" in state_dict:
            self._refresh(is_more_precise(state_dict[prefix + "matrix"].dtype, self.matrix.dtype))


class FixedLinear(_Mixing):
    r"""Multiply the channels by a fixed matrix, and add a fixed shift.

    .. math:: y = M x + b

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        :math:`P \log |\det M|`, nats per sample, for P positions.

    Arguments:
        in_shapes: Shape of the input.
        matrix: M, of shape (C, C); its inverse and determinant are computed once, in float64.
        shift: b, a number for each channel. Default: none.

    Raises:
        GraphError: If matrix or shift have the wrong shape, the matrix can't be inverted, or the shift is not finite.

    References:
        G. Papamakarios, E. Nalisnick, D. J. Rezende, S. Mohamed, B. Lakshminarayanan, "Normalizing Flows for
        Probabilistic Modeling and Inference", 2019, https://arxiv.org/abs/1912.02762

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.FixedLinear((2,), matrix=[[2.0, 0.0], [0.0, 1.0]])((torch.ones(1, 2),))
        >>> y, log_det
        (tensor([[2., 1.]]), tensor([0.6931]))
    """

    inverse_matrix: Tensor
    log_abs_det: Tensor
    shift: Tensor | None
    _derived_from: tuple[Tensor, int, Tensor, Tensor] | None = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        matrix: Tensor | Sequence[Sequence[float]],
        shift: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        channels = self.in_shapes[0][0]
        exact = as_matrix("FixedLinear", matrix)
        if exact.shape != (channels, channels):
            given = f"matrix of shape {tuple(exact.shape)}"
            raise GraphError("FixedLinear", given, f"expected ({channels}, {channels}) for {channels} channels")
        held = exact.to(torch.get_default_dtype()).to(exact)  # tiny and huge numbers become zero and infinity
        condition = torch.linalg.cond(held).item() if bool(held.isfinite().all()) else math.inf
        if not condition < _WORST_CONDITION:
            given = f"a matrix of condition number {condition:.0e}"
            raise GraphError("FixedLinear", given, f"not invertible (cond {condition:.0e}) within rounding")
        self.register_buffer("shift", None if shift is None else to_defaults(self._require_shift(shift)))
        self.register_buffer("matrix", to_defaults(exact))
        self.register_buffer("inverse_matrix", torch.empty(0), persistent=False)
        self.register_buffer("log_abs_det", torch.empty(0), persistent=False)
        self._refresh(more_precise=False)

    def _require_shift(self, shift: object) -> Tensor:
        channels, *sizes = self.in_shapes[0]
        exact = as_numbers("FixedLinear", "shift", shift)
        if exact.shape != (channels,) or not bool(exact.to(torch.get_default_dtype()).isfinite().all()):
            given = f"shift of shape {tuple(exact.shape)}"
            raise GraphError("FixedLinear", given, f"expected {channels} finite numbers for {channels} channels")
        return exact.view(channels, *(1 for _ in sizes))

    def _refresh(self, more_precise: bool) -> None:
        if self.matrix.is_meta:
            self.inverse_matrix, self.log_abs_det = torch.empty_like(self.matrix), self.matrix.new_empty(())
            return
        self.inverse_matrix, self.log_abs_det = _inverse_and_log_det(self.matrix)

    def _derived(self) -> tuple[Tensor, Tensor]:
        """Return the inverse and the log of the determinant, of the matrix as it is now.

        ``functional_call`` puts another matrix in its place, and it may be changed in place.
        """
        if torch.compiler.is_compiling() or self.matrix.is_meta:
            return self.inverse_matrix, self.log_abs_det
        count = 0 if self.matrix.is_inference() else version(self.matrix)
        if self._derived_from is None or self._derived_from[0] is not self.matrix or self._derived_from[1] != count:
            with torch.inference_mode(False):  # what is kept is used in training steps too, which can't save others
                self._derived_from = self.matrix, count, *_inverse_and_log_det(self.matrix)
        return self._derived_from[2:]

    def renew_derived(self) -> None:
        """Bring what compiled code reads up to date; called before each compiled call of a graph."""
        self.inverse_matrix, self.log_abs_det = self._derived()

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        _, log_abs_det = self._derived()
        log_det = log_abs_det * positions(self.in_shapes[0])
        y = mix(xs[0], self.matrix)
        return (y if self.shift is None else y + self.shift,), log_det.expand(y.shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        inverse_matrix, log_abs_det = self._derived()
        log_det = log_abs_det * -positions(self.in_shapes[0])
        y = ys[0] if self.shift is None else ys[0] - self.shift
        return (mix(y, inverse_matrix),), log_det.expand(y.shape[0])


def _inverse_and_log_det(matrix: Tensor) -> tuple[Tensor, Tensor]:
    exact = matrix.detach().to("cpu", torch.float64)
    inverse, _ = torch.linalg.inv_ex(exact)
    return inverse.to(matrix), torch.linalg.slogdet(exact).logabsdet.to(matrix)


class Orthogonal(_Mixing):
    r"""Rotate the channels by a fixed random orthogonal matrix (the paper's soft permutation, 3.4).

    .. math:: y = Q x, \qquad Q^\top Q = 1

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        0.

    Arguments:
        in_shapes: Shape of the input.
        seed: Seed of the matrix, which is uniform over the orthogonal group. None: a seed from the layer's place in the
            graph, which differs from block to block; 0 outside a graph.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392; F. Mezzadri, "How to generate random matrices from the classical compact
        groups", 2006, https://arxiv.org/abs/math-ph/0609050

    Example:
        >>> import torch, invgraph as ig
        >>> (y,), log_det = ig.Orthogonal((3, 4, 4), seed=1)((torch.ones(2, 3, 4, 4),))
        >>> bool((y.square().sum() - 96).abs() < 1e-3), log_det
        (True, tensor([0., 0.]))
    """

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, seed: int | None = None) -> None:
        super().__init__(in_shapes, cond_shapes)
        seed = start_seed("Orthogonal", seed)
        channels = self.in_shapes[0][0]
        self.register_buffer("matrix", to_defaults(random_rotation(channels, seed)))

    def _refresh(self, more_precise: bool) -> None:
        if more_precise and not self.matrix.is_meta:
            self.matrix = nearest_rotation(self.matrix)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return (mix(xs[0], self.matrix),), xs[0].new_zeros(xs[0].shape[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (mix(ys[0], self.matrix.t()),), ys[0].new_zeros(ys[0].shape[0])
