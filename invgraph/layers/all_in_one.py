"""A coupling, a global scale and shift, and a permutation in one block, of which most published INNs are stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice, require_count, require_flag
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import check_subnet, make_subnet
from invgraph.errors import ArgumentError
from invgraph.numerics.channels import (
    channel_moments,
    is_more_precise,
    mix,
    nearest_rotation,
    random_rotation,
    split_sizes,
)
from invgraph.numerics.linalg import own_precision
from invgraph.numerics.seeding import generator, normal, start_seed, to_defaults
from invgraph.shapes import Shape, Tensors, positions
from invgraph.torch_internals import has_data
from invgraph.transforms.affine import Affine
from invgraph.transforms.transform import Transform


class AllInOne(Invertible):
    r"""One-sided coupling, global scale and shift per channel, and a permutation: the block of most INNs.

    .. math:: y = R \left( e^{g} \odot f(V x; c) + b \right), \qquad f(u_1, u_2; c) = (T(u_1; u_2, c), u_2)

    T is the transform, g and b are learned per channel. R is a fixed permutation (``"hard"``) or rotation
    (``"soft"``) of the channels, times learned Householder reflections where asked for. V is 1, or with ``reverse``
    the inverse of R, so that a stack of blocks keeps the order of the channels.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``, C at least 2; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same
        spatial size.

    Log-det:
        The transform's plus the sum of g over channels and positions, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Transform of each element; ``VolumePreserving()`` with ``scale=False`` is the block of GIN. Default:
            ``Affine()``.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module``.
        split: Channels of the part that is transformed: a fraction (rounded down) or a number. Default: 0.5.
        permutation: ``"soft"`` or ``"hard"``.
        householder: Number of learned reflections that R is multiplied with. Default: 0.
        reverse: True to undo R before the coupling. Default: False.
        scale: True to learn g; False keeps it at 0, so that a volume-preserving block preserves volumes. Default: True.
        seed: Seed of the permutation and of the reflections at the start. None: a seed from the layer's place in the
            graph, which differs from block to block; 0 outside a graph.

    Raises:
        GraphError: The channels can't be split so, or the subnet does not fit.
        ArgumentError: An argument has the wrong type.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392; P. Sorrenson, C. Rother, U. Koethe, "Disentanglement by Nonlinear ICA with
        General Incompressible-flow Networks (GIN)", 2020, https://arxiv.org/abs/2001.04872

    Example:
        >>> import torch, invgraph as ig
        >>> block = ig.AllInOne((4,), ((10,),), subnet=ig.nets.MLP(hidden=16), householder=2, reverse=True)
        >>> (y,), log_det = block((torch.ones(2, 4),), (torch.zeros(2, 10),))
        >>> torch.allclose(y, torch.ones(2, 4), atol=1e-5)
        True
    """

    conditional = True
    fixed_size_reason = None
    rotation: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        subnet: object,
        transform: Transform | None = None,
        split: float = 0.5,
        permutation: Literal["soft", "hard"] = "soft",
        householder: int = 0,
        reverse: bool = False,
        scale: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        reverse = require_flag("AllInOne", "reverse", reverse)
        scale = require_flag("AllInOne", "scale", scale)
        kind = require_choice("AllInOne", "permutation", permutation, ("soft", "hard"))
        householder = require_count("AllInOne", "householder", householder, least=0)
        seed = start_seed("AllInOne", seed)
        self.transform = _checked(transform)
        self.reverse = reverse
        channels, *sizes = self.in_shapes[0]
        self.sizes = split_sizes("AllInOne", self.in_shapes[0], split)
        self.subnet = make_subnet("AllInOne", subnet, *self._subnet_shapes())
        per_channel = (channels, *(1 for _ in sizes))
        self.log_scale = nn.Parameter(torch.zeros(per_channel)) if scale else None
        self.shift = nn.Parameter(torch.zeros(per_channel))
        self._draw(channels, kind, householder, seed)

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what the subnet reads, as data and conditions, and of what it returns."""
        (first, second), sizes = self.sizes, self.in_shapes[0][1:]
        return (second, *sizes), self.cond_shapes, (first * self.transform.params_per_element, *sizes)

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        check_subnet(self.label, self.subnet, *self._subnet_shapes())

    def _draw(self, channels: int, permutation: str, householder: int, seed: int) -> None:
        source = generator(seed)
        if permutation == "soft":
            fixed = random_rotation(channels, seed)
        else:
            order = torch.randperm(channels, generator=source, device="cpu")
            fixed = torch.eye(channels, dtype=torch.float64, device="cpu")[order]
        vectors = normal((householder, channels), source)
        self.register_buffer("rotation", to_defaults(fixed))
        self.reflections = nn.Parameter(to_defaults(vectors)) if householder else None

    def precompute(self, cs: Tensors) -> Precomputed:
        return self.subnet.prepare(cs)

    def _forward(self, xs: Tensors, given: Any) -> Result:
        matrix = self._matrix()
        x = mix(xs[0], matrix.t()) if self.reverse else xs[0]
        first, second = x.split(self.sizes, dim=1)
        first, log_det = self.transform.forward(first, self._params(second, given))
        y = torch.cat((first, second), dim=1)
        y, log_det = self._scaled(y), log_det + self._log_det()
        return (mix(y, matrix),), log_det

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        matrix = self._matrix()
        y = mix(ys[0], matrix.t()) - self.shift
        y = y if self.log_scale is None else y * torch.exp(-self.log_scale)
        first, second = y.split(self.sizes, dim=1)
        first, log_det = self.transform.inverse(first, self._params(second, given))
        x = torch.cat((first, second), dim=1)
        return (mix(x, matrix) if self.reverse else x,), log_det - self._log_det()

    def _params(self, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of the part that is transformed, given the other part."""
        params: Tensor = (
            self.subnet(x, given).to(x.dtype).unflatten(1, (self.transform.params_per_element, self.sizes[0]))
        )
        return params

    def _scaled(self, y: Tensor) -> Tensor:
        return y + self.shift if self.log_scale is None else torch.addcmul(self.shift, y, self.log_scale.exp())

    def _log_det(self) -> Tensor | float:
        return 0.0 if self.log_scale is None else self.log_scale.sum() * positions(self.in_shapes[0])

    def _matrix(self) -> Tensor:
        """Return R, the fixed matrix times the learned reflections ``1 - 2 v v^T / v^T v``."""
        matrix: Tensor = self.rotation
        with own_precision(matrix):  # in half precision it would no longer be orthogonal
            for v in self.reflections if self.reflections is not None else ():
                matrix = matrix - torch.outer(matrix @ v, v) * (2 / v.square().sum())
        return matrix

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Choose scale and shift so that this batch leaves the coupling with mean 0 and deviation 1 per channel."""
        x = mix(xs[0], self._matrix().t()) if self.reverse else xs[0]
        first, second = x.split(self.sizes, dim=1)
        first, _ = self.transform.forward(first, self._params(second, cs))
        mean, std = channel_moments(self.label, torch.cat((first, second), dim=1))
        if self.log_scale is not None:
            self.log_scale.copy_(-std.log().view_as(self.log_scale))
            mean = mean / std
        self.shift.copy_(-mean.view_as(self.shift))

    @torch.no_grad()
    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        """Choose them so that this batch enters the inverse coupling with mean 0 and deviation 1 per channel."""
        mean, std = channel_moments(self.label, mix(ys[0], self._matrix().t()))
        if self.log_scale is not None:
            self.log_scale.copy_(std.log().view_as(self.log_scale))
        self.shift.copy_(mean.view_as(self.shift))

    def _is_initialized(self) -> bool:
        """True if scale or shift, which start as zeros, hold anything else."""
        own = (self.shift,) if self.log_scale is None else (self.shift, self.log_scale)
        return any(has_data(values) and bool(values.any()) for values in own)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.rotation.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._refresh(before)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "rotation" in state_dict:
            self._refresh(state_dict[prefix + "rotation"].dtype)

    def _refresh(self, before: torch.dtype) -> None:
        if is_more_precise(before, self.rotation.dtype) and not self.rotation.is_meta:
            self.rotation = nearest_rotation(self.rotation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}, reverse={self.reverse}"


def _checked(transform: object) -> Transform:
    """Return the transform, an affine one for None."""
    if transform is None:
        return Affine()
    if not isinstance(transform, Transform):
        raise ArgumentError("AllInOne", f"transform={transform!r}", "expected a transform such as Affine(clamp=1.9)")
    return transform
