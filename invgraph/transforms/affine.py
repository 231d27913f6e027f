"""The affine transform of RealNVP, GLOW and the paper's coupling blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

from invgraph.errors import GraphError
from invgraph.fused.affine_map import map_affinely
from invgraph.fused.descriptions import AffineMap
from invgraph.fused.switch import fused
from invgraph.numerics.reductions import per_sample
from invgraph.numerics.soft_clamp import Activation, require_clamp, soft_clamp, squash
from invgraph.torch_internals import is_eager
from invgraph.transforms.transform import Unbounded

Clamp = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine(Unbounded):
    r"""Scale and shift each element, with a softly clamped log scale (paper, Eqs. 1, 2 and 7).

    .. math:: y = x \exp(s_\text{clamp}) + t, \qquad s_\text{clamp} = \frac{2 \alpha}{\pi} \arctan\frac{s}{\alpha}

    Log-det:
        The sum of :math:`s_\text{clamp}` over the elements, in nats per sample.

    Arguments:
        clamp: Bound alpha of the log scale; or any differentiable function from s to the log scale, elementwise, such
            as ``torch.tanh``, which takes the place of both arguments. Default: 1.9.
        activation: Soft clamp: ``"atan"``, as in the paper (default); ``"tanh"``: alpha tanh(s / alpha); or
            ``"sigmoid"``: alpha (2 sigmoid(s / alpha) - 1).

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803; L. Ardizzone et al., "Guided Image Generation with Conditional Invertible
        Neural Networks", 2019, https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> y, log_det = ig.Affine(clamp=1.0).forward(torch.ones(1, 2), torch.zeros(1, 2, 2))
        >>> y, log_det
        (tensor([[1., 1.]]), tensor([0.]))
    """

    clamp: float | Clamp = 1.9
    activation: Activation = "atan"

    def __post_init__(self) -> None:
        if not callable(self.clamp):
            self._set(clamp=require_clamp("Affine", self.clamp, self.activation))
            return
        given = f"clamp={clamp_name(self.clamp)}"
        if self.activation != "atan":
            raise GraphError(
                "Affine", f"{given}, activation={self.activation!r}", "a clamp function needs no activation"
            )
        if isinstance(self.clamp, nn.Module) and any(True for _ in self.clamp.parameters()):
            raise GraphError(
                "Affine", given, "a transform has no parameters: give a function, or a module without parameters"
            )

    def __repr__(self) -> str:
        if callable(self.clamp):  # without the function's address, because checkpoints are compared by this text
            return f"{type(self).__name__}(clamp={clamp_name(self.clamp)})"
        return f"{type(self).__name__}(clamp={self.clamp!r}, activation={self.activation!r})"

    @property
    def params_per_element(self) -> int:
        return 2

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        if callable(self.clamp) or not (is_eager() and fused.enabled):
            return self._scale(x, params)
        return map_affinely(self.as_map(inverse=False), x, params)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        if callable(self.clamp) or not (is_eager() and fused.enabled):
            return self._unscale(y, params)
        return map_affinely(self.as_map(inverse=True), y, params)

    def as_map(self, inverse: bool) -> AffineMap:
        """Return one direction as kernels need it; not for clamps that are functions."""
        assert not callable(self.clamp)
        formula, steps = self._unscale if inverse else self._scale, squash(self.clamp, self.activation)
        return AffineMap(formula, self.clamp, self.activation, steps, inverse)

    def _scale(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = params.unbind(1)
        s = self._clamped(raw)
        return torch.addcmul(t, x, torch.exp(s)), per_sample(s)

    def _unscale(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = params.unbind(1)
        s = self._clamped(raw)
        return (y - t) / torch.exp(s), -per_sample(s)

    def _clamped(self, raw: Tensor) -> Tensor:
        return self.clamp(raw) if callable(self.clamp) else soft_clamp(raw, self.clamp, self.activation)


def clamp_name(clamp: Clamp) -> str:
    """Return the name of a function, which is the same in every process."""
    return str(getattr(clamp, "__qualname__", type(clamp).__name__))


def has_kernel(transform: object) -> TypeGuard[Affine]:
    """True for the affine transform itself, with a soft clamp; a class derived from it may do anything."""
    return type(transform) is Affine and not callable(transform.clamp)


def affine_maps(transforms: Sequence[object]) -> tuple[AffineMap, AffineMap] | None:
    """Return both directions of equal affine transforms, as kernels need them; None if they are anything else."""
    first = transforms[0]
    if not has_kernel(first) or any(not has_kernel(other) or other != first for other in transforms):
        return None
    return first.as_map(inverse=False), first.as_map(inverse=True)
